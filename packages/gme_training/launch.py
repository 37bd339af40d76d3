"""Starting the ranks of a stage on this machine and watching them; with a job as argument, being one of them.

The parent follows the events that rank 0 writes and shows the progress. If a rank fails, the others are stopped and
the error says what the failing rank said last: one that is meant for the user lies where the parent finds it. If the
parent dies, however it dies, the ranks die with it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, ClassVar

from pydantic import ConfigDict, Field

from gme_data.environment import set_default_env
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.process import die_with_parent
from gme_data.structured import StructureError, read_json
from gme_training.devices import Device
from gme_training.follow import POLL_SECONDS, Follower, Watch
from gme_training.stopping import EXIT_STOPPED

PARENT = "GME_PARENT_PID"
_LAST_LINES = 15
_GRACE_SECONDS = 30.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankError:
    """An error for the user that a rank left."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    message: str
    hint: str | None
    exit_code: Annotated[int, Field(ge=1, le=255)]


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


def _wait(children: Sequence[subprocess.Popen[bytes]], watch: Watch) -> int | None:
    """Wait until all ranks are done; the number of the first that failed, if one did."""
    follower = Follower(watch)
    while True:
        codes = [child.poll() for child in children]
        follower.look()
        failed = next((rank for rank, code in enumerate(codes) if code not in (None, 0)), None)
        if failed is not None or all(code == 0 for code in codes):
            follower.close()
            return failed
        time.sleep(POLL_SECONDS)


def _ask_to_stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let the ranks save the step they are at."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    _end(children)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
    for child in children:
        child.wait()


def _explain(rank: int, code: int, scratch: Path, log_dir: Path) -> FoundryError:
    """The user's error if any rank left one, else the last words of the rank that failed first."""
    for path in sorted(scratch.glob(".error-rank*.json")):
        try:
            left = read_json(path, RankError)
        except StructureError as error:
            log.warning("what a rank left can't be read: %s", error)
            continue
        return FoundryError(left.message, hint=left.hint, exit_code=left.exit_code)
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


def main(arguments: list[str]) -> int:
    """One rank: train the job named by the only argument; the exit status."""
    if parent := os.environ.get(PARENT):
        die_with_parent(int(parent))
    set_default_env()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    path = Path(arguments[0])
    scratch = path.parent
    from gme_training.room import explained

    try:
        with explained(scratch):
            from gme_training.engine import connect, disconnect
            from gme_training.job import read_job
            from gme_training.trainer import Trainer

            job = read_job(path)
            connect()
            Trainer(job).run()
            disconnect()
    except FoundryError as error:
        left = RankError(str(error), error.hint, error.exit_code)
        atomic_write(error_file(scratch, int(os.environ["RANK"])), json.dumps(asdict(left)).encode())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
