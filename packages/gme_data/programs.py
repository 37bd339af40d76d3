"""Subprocesses that run a server of a library: started with a log file, awaited, and ended with all their children.

``python -m gme_data.programs PARENT MODULE ARGUMENT...`` runs a Python program that does not outlive its parent; the
functions here start servers through it. Knows no server.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.process import die_with_parent

LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 20.0

Program = subprocess.Popen[bytes]


@contextmanager
def running_program(
    module: str, arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, log: Path
) -> Iterator[Program]:
    """Runs ``python -m MODULE ARGUMENT...``, and ends it with its process group when the block ends.

    Args:
        module: The module of the program.
        arguments: Its command line. Every user of the machine can read it, so secrets go into the environment.
        environment: Its complete environment.
        folder: Its working directory.
        log: File for its output, overwritten.
    """
    process = start_program(module, arguments, environment, folder, log)
    try:
        yield process
    finally:
        stop_program(process)


def start_program(
    module: str, arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, log: Path, mode: str = "wb"
) -> Program:
    """Starts what `running_program` runs, to be ended by `stop_program`; `mode` is that in which the log is opened."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(path for path in sys.path if path)
    with log.open(mode) as output:
        return subprocess.Popen(
            # -P: no file in the working directory is imported.
            [sys.executable, "-P", "-m", "gme_data.programs", str(os.getpid()), module, *arguments],
            cwd=folder,
            env={**environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, and killpg its children too
        )


def stop_program(process: Program) -> None:
    """Ends a program and its process group by SIGTERM, and by SIGKILL if it does not end in time."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            # It leads a session of its own, so its process group has its id.
            os.killpg(process.pid, sign)
            process.wait(_STOP_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def await_answer(name: str, process: Program, url: str, log: Path, seconds: float) -> None:
    """Waits until `url` answers with 200.

    Raises:
        FoundryError: The program ended, or `seconds` are over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise FoundryError(f"{name} ended with code {process.returncode}.", hint=f"See {log}.", exit_code=1)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise FoundryError(f"{name} did not answer in {seconds:.0f} s.", hint=f"See {log}.", exit_code=1)


def free_port(port: int | None = None) -> int:
    """Returns `port` if it is free on loopback, or any free one.

    Raises:
        FoundryError: It is taken.
    """
    with socket.socket() as probe:
        # As servers do: a connection of a previous server in TIME_WAIT does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port or 0))
        except OSError as error:
            raise FoundryError(f"Port {port} is taken.", hint="Give another, or none to get a free one.") from error
        return int(probe.getsockname()[1])


def _run(parent: str, module: str, *arguments: str) -> None:
    die_with_parent(int(parent))
    gc.set_threshold(50_000, 20, 20)  # it imports for seconds, in which the collector would find no garbage
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(*sys.argv[1:])
