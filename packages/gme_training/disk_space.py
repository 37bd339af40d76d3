"""Room on disk: what a stage will need, asked before it starts, and what went wrong with a file, said to the user.

Knows folders, bytes and errors of writing; not what is written.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gme_data.errors import FoundryError, explain_memory_error, explain_os_error
from gme_training.config import TrainingConfig

_FLOAT = 4
_GIB = 2**30
_PROBE = b"\0" * 4096
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_TORCH_WRITER = re.compile(r"inline_container|PytorchStreamWriter|Parent directory .* does not exist")
"""How torch, in errors that carry no number, says that a file could not be written."""
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


def checkpoint_bytes(config: TrainingConfig, trained: int) -> int:
    """Bytes of one checkpoint, the parts of all ranks together, of `trained` parameters.

    Weights and two moments in float32; ZeRO adds its own float32 copy of the weights.
    """
    return _FLOAT * (3 if config.zero_stage == 0 else 4) * trained


def stage_bytes(config: TrainingConfig, trained: int, parameters: int) -> int:
    """Most bytes that a stage has on disk at once: its checkpoints, one of them being written, and the model.

    Args:
        config: Checkpoints kept, stage of ZeRO.
        trained: Parameters that some phase trains.
        parameters: All of them; the model is saved in float32.
    """
    return (config.keep_checkpoints + 1) * checkpoint_bytes(config, trained) + _FLOAT * parameters


def require_room(folder: Path, needed_bytes: int) -> None:
    """Check that a folder can be written and that its disk has room; make it if it is not there.

    Args:
        folder: Where a stage is going to write.
        needed_bytes: In all: what is in it already, from a run that was stopped, counts as room, for it is replaced.

    Raises:
        FoundryError: Names the folder, and what to do.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(_PROBE)
            probe.flush()
        free = shutil.disk_usage(folder).free
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if free + held < needed_bytes:
        raise FoundryError(
            f"Too little room on the disk of {folder}: its checkpoints and the model need {needed_bytes / _GIB:.2f} "
            f"GiB, {(free + held) / _GIB:.2f} GiB are free.",
            hint="Free some space, lower keep_checkpoints, or work in a folder on a larger disk.",
            exit_code=1,
        )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while `folder` is written into an error for the user; anything else passes unchanged.

    Python, safetensors and torch each say in their own way that a disk is full, or that there is no memory.

    Raises:
        FoundryError: Names the folder, and what to do.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        if memory := explain_memory_error(error):  # first: a writer that gets none says that it could not write
            raise memory from error
        found = _number(error)
        if found is None and not (type(error) is RuntimeError and _TORCH_WRITER.search(str(error))):
            raise
        raise _explanation(found, folder) from error


def _number(error: Exception) -> int | None:
    """The system's number of an error."""
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def _explanation(number: int | None, folder: Path) -> FoundryError:
    known = explain_os_error(OSError(number, "", str(folder))) if number else None
    if known:
        return known
    if number in _NO_FOLDER:
        return FoundryError(
            f"Not a folder that can be written: {folder}",
            hint="Something on its path is a file, or it was removed meanwhile; choose another folder.",
            exit_code=1,
        )
    return FoundryError(
        f"A file could not be written whole in {folder}; {_free(folder)}.",
        hint="Free some space, or raise the limits on files (`ulimit -f`, a quota), and run the same command again; "
        "finished work is kept.",
        exit_code=1,
    )


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / _GIB:.2f} GiB are free on its disk"
    except OSError:
        return "its disk does not answer"
