"""Starts the ranks of a stage on this machine and watches them; run as a module, it is one of them.

The parent reads the events that rank 0 writes and shows the progress. If a rank fails, the others are stopped and the
error has the last lines of the failing rank's log, or the message that a rank left for the user. If the parent dies,
however it dies, the ranks die with it.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gme_data.environment import set_default_env
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.process import die_with_parent
from gme_data.structured import StructureError, read_json
from gme_training.devices import Device
from gme_training.stage_progress import POLL_SECONDS, ProgressSource, StageProgress
from gme_training.stop_request import EXIT_STOPPED

PARENT = "GME_PARENT_PID"
"""The environment variable that tells a rank the process with which it has to die."""
_LAST_LINES = 15
"""Lines of a failed rank's log that its error shows."""
_GRACE_SECONDS = 30.0
"""Seconds that ranks get to save the step at which they were asked to stop."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankError:
    """The file in which a rank leaves an error that is meant for the user."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    message: str
    hint: str | None
    exit_code: Annotated[int, Field(ge=1, le=255)]


def error_file(folder: Path, rank: int) -> Path:
    """Returns the path of a rank's `RankError`."""
    return folder / f".error-rank{rank}.json"


def run_ranks(
    arguments: Sequence[str], ranks: int, *, device: Device, scratch: Path, log_dir: Path, progress: ProgressSource
) -> None:
    """Runs ``python -m <arguments>`` once for each rank and waits for all of them.

    Args:
        arguments: The module and its arguments.
        ranks: The number of processes; they find each other by MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE.
        device: The device they run on; for ``cpu`` they see no GPU.
        scratch: The folder in which ranks leave their errors.
        log_dir: The folder of ``rank-<n>.log``.
        progress: The progress to show meanwhile.

    Raises:
        FoundryError: A rank failed.
    """
    for rank in range(ranks):
        error_file(scratch, rank).unlink(missing_ok=True)
    port = str(free_port())
    logs = [(log_dir / f"rank-{rank}.log").open("ab") for rank in range(ranks)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(ranks):
            child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=rank_environment(rank, ranks, device, port),
                stdin=subprocess.DEVNULL,
                stdout=logs[rank],
                stderr=subprocess.STDOUT,
            )
            children.append(child)
        failed = _wait(children, progress)
        if failed is not None and children[failed].returncode == EXIT_STOPPED:
            _wait_for_exit(children)  # the others have the same step to save
    except KeyboardInterrupt:
        # Ctrl-C: ranks finish and save their step before they are ended.
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        _wait_for_exit(children)
        raise
    finally:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
        for child in children:
            child.wait()
        for handle in logs:
            handle.close()
    if failed is not None:
        raise _error_of(failed, children[failed].returncode, scratch, log_dir)


def rank_environment(rank: int, ranks: int, device: Device, port: str) -> dict[str, str]:
    """Returns the environment of one rank."""
    return {
        **os.environ,
        # A library that looks for GPUs on its own would otherwise take one.
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        PARENT: str(os.getpid()),
        # Steps of ever new lengths fill oneDNN's cache of compiled products and fragment the heap: these take a quarter
        # off the memory of a rank.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
        "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
        # Checkpoints are our own files, but a loader that can't run code is safer than trust in them.
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    }


def free_port() -> int:
    """Returns a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started_by_launcher() -> bool:
    """Returns whether another launcher, such as torchrun or deepspeed, started this process as a rank."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


def _wait(children: Sequence[subprocess.Popen[bytes]], source: ProgressSource) -> int | None:
    """Waits until all ranks are done or one has failed; returns the first that failed."""
    progress = StageProgress(source)
    while True:
        codes = [child.poll() for child in children]
        progress.update()
        failed = next((rank for rank, code in enumerate(codes) if code not in (None, 0)), None)
        if failed is not None or all(code == 0 for code in codes):
            progress.close()
            return failed
        time.sleep(POLL_SECONDS)


def _wait_for_exit(children: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _error_of(rank: int, code: int, scratch: Path, log_dir: Path) -> FoundryError:
    """Returns the error for the user, if any rank left one, else the last lines of the rank that failed first."""
    # Any rank: the one that knows the reason may not be the one that failed first.
    for path in sorted(scratch.glob(".error-rank*.json")):
        try:
            error = read_json(path, RankError)
        except StructureError as damaged:
            log.warning("what a rank left can't be read: %s", damaged)
            continue
        return FoundryError(error.message, hint=error.hint, exit_code=error.exit_code)
    lines = (log_dir / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    reason = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    hint = (
        f"Its whole log: {log_dir / f'rank-{rank}.log'}. Run the same command again to go on from the last checkpoint."
    )
    return FoundryError(
        "\n".join([f"Rank {rank} {reason}. Its last lines:", *lines[-_LAST_LINES:]]), hint=hint, exit_code=1
    )


def main(arguments: list[str]) -> int:
    """Runs one rank: trains the job whose file is the only argument, and returns the exit status."""
    if parent := os.environ.get(PARENT):
        die_with_parent(int(parent))
    set_default_env()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    path = Path(arguments[0])
    scratch = path.parent
    from gme_training.disk_space import explain_write_errors

    try:
        with explain_write_errors(scratch):
            from gme_training.engine import join_process_group, leave_process_group
            from gme_training.job import read_job
            from gme_training.trainer import Trainer

            job = read_job(path)
            join_process_group()
            Trainer(job).run()
            leave_process_group()
    except FoundryError as error:
        content = json.dumps(asdict(RankError(str(error), error.hint, error.exit_code)))
        atomic_write(error_file(scratch, int(os.environ["RANK"])), content.encode())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
