"""Starting the ranks of a stage on this machine and watching them.

The parent follows the events that rank 0 writes and shows the progress. If a rank fails, the others are stopped and
the error says what the failing rank said last; if the parent dies, however it dies, the ranks die with it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gme_data.errors import FoundryError
from gme_data.progress import Progress
from gme_training.devices import Device
from gme_training.stopping import EXIT_STOPPED

PARENT = "GME_PARENT_PID"
_POLL_SECONDS = 0.2
_LAST_LINES = 15
_GRACE_SECONDS = 30.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """Where rank 0 reports and what is shown of it: `total` steps, `events` file, label of the progress."""

    label: str
    total: int
    events: Path


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank leaves an error that is meant for the user."""
    return folder / f".error-rank{rank}.json"


def run_ranks(
    arguments: Sequence[str], ranks: int, *, device: Device, scratch: Path, log_dir: Path, watch: Watch
) -> None:
    """Run ``python -m <arguments>`` once per rank and wait for all.

    Args:
        arguments: Module and its arguments.
        ranks: Number of processes; they find each other by MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE.
        device: Where they run; for ``cpu`` they see no GPU.
        scratch: Folder in which ranks leave their errors.
        log_dir: Folder of ``rank-<n>.log``.
        watch: What to show meanwhile.

    Raises:
        FoundryError: A rank failed.
    """
    for rank in range(ranks):
        error_file(scratch, rank).unlink(missing_ok=True)
    port = str(_free_port())
    logs = [(log_dir / f"rank-{rank}.log").open("ab") for rank in range(ranks)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(ranks):
            children.append(_start(arguments, _environment(rank, ranks, device, port), logs[rank]))
        failed = _wait(children, watch)
        if failed is not None and children[failed].returncode == EXIT_STOPPED:
            _end(children)  # the others have the same step to save
    except KeyboardInterrupt:
        _ask_to_stop(children)
        raise
    finally:
        _stop(children)
        for handle in logs:
            handle.close()
    if failed is not None:
        raise _explain(failed, children[failed].returncode, scratch, log_dir)


def _environment(rank: int, ranks: int, device: Device, port: str) -> Mapping[str, str]:
    return {
        **os.environ,
        # A library that looks for GPUs by itself would take one.
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        PARENT: str(os.getpid()),
        # Steps of ever new lengths fill the cache of compiled products and fragment the heap: a quarter less memory.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
        "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
        # Files for resuming are our own, but a loader that can't run code is better than trust.
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


def _start(arguments: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def launched() -> bool:
    """Whether another launcher, such as torchrun or deepspeed, started this process as a rank."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Show the progress of ranks that this process did not start."""
    done, follower = threading.Event(), _Follower(watch)

    def follow() -> None:
        while not done.wait(_POLL_SECONDS):
            follower.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        follower.close()


def _wait(children: Sequence[subprocess.Popen[bytes]], watch: Watch) -> int | None:
    """Wait until all ranks are done; the number of the first that failed, if one did."""
    follower = _Follower(watch)
    while True:
        codes = [child.poll() for child in children]
        follower.look()
        failed = next((rank for rank, code in enumerate(codes) if code not in (None, 0)), None)
        if failed is not None or all(code == 0 for code in codes):
            follower.close()
            return failed
        time.sleep(_POLL_SECONDS)


class _Follower:
    """Shows what is written to a file of events from now on."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._position = watch.events.stat().st_size if watch.events.exists() else 0
        self._progress: Progress | None = None

    def look(self) -> None:
        """Show what is new."""
        fresh, self._position = _read_from(self._watch.events, self._position)
        for event in fresh:
            if event.get("kind") == "start":
                self._progress = Progress(self._watch.label, self._watch.total, "steps", done=int(event["step"]))
                self._progress.__enter__()
            elif event.get("kind") == "step" and self._progress is not None:
                self._progress.advance(1, f"{event['phase']} · {event['source']} · loss {event['loss']:.3f}")

    def close(self) -> None:
        """Show the last of it."""
        self.look()
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


def _read_from(path: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines after `position`, and where the next read starts."""
    if not path.exists():
        return [], position
    with path.open("rb") as handle:
        handle.seek(position)
        data = handle.read()
    whole = data.rpartition(b"\n")[0]
    events = []
    for line in whole.splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the torn last line of an earlier run that was killed
    return events, position + (len(whole) + 1 if whole else 0)


def _ask_to_stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let the ranks save the step they are at."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    _end(children)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
    for child in children:
        child.wait()


def _explain(rank: int, code: int, scratch: Path, log_dir: Path) -> FoundryError:
    """The user's error if any rank left one, else the last words of the rank that failed first."""
    for path in sorted(scratch.glob(".error-rank*.json")):
        left = json.loads(path.read_text(encoding="utf-8"))
        return FoundryError(left["message"], hint=left["hint"], exit_code=left["exit_code"])
    words = (log_dir / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    why = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    hint = (
        f"Its whole log: {log_dir / f'rank-{rank}.log'}. Run the same command again to go on from the last checkpoint."
    )
    return FoundryError(
        "\n".join([f"Rank {rank} {why}. Its last lines:", *words[-_LAST_LINES:]]), hint=hint, exit_code=1
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
