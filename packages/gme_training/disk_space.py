"""Disk space: how much a stage needs, checked before it starts, and errors of writing, explained to the user.

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
"""Bytes of a number in float32."""
_GIB = 2**30
_PROBE = b"\0" * 4096
"""What is written to a folder to see whether it can be written."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""The system's error number, as safetensors has it in its messages."""
_TORCH_WRITER = re.compile(r"inline_container|PytorchStreamWriter|Parent directory .* does not exist")
"""The messages of torch, which have no error number, when a file could not be written."""
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
"""The error numbers of a path on which something is no folder."""


def checkpoint_bytes(config: TrainingConfig, trained: int) -> int:
    """Returns the bytes of one checkpoint of `trained` parameters, the files of all ranks together."""
    # Weights and two moments in float32; ZeRO adds its own float32 copy of the weights.
    return _FLOAT * (3 if config.zero_stage == 0 else 4) * trained


def stage_bytes(config: TrainingConfig, trained: int, parameters: int) -> int:
    """Returns the most bytes that a stage has on disk at once.

    Args:
        config: The stage, with the number of checkpoints that are kept and the ZeRO stage.
        trained: The number of parameters that some phase trains.
        parameters: The number of all parameters; the model is saved in float32.
    """
    # A new checkpoint is complete before the oldest is removed.
    return (config.keep_checkpoints + 1) * checkpoint_bytes(config, trained) + _FLOAT * parameters


def require_disk_space(folder: Path, needed_bytes: int) -> None:
    """Checks that a folder can be written and that its disk has enough space; makes the folder if it does not exist.

    Args:
        folder: The folder to which a stage is going to write.
        needed_bytes: The bytes that it needs in all. Files that are in the folder already, from a run that was
            stopped, count as free space, since they are replaced.

    Raises:
        FoundryError: Names the folder, and what to do.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(_PROBE)
            probe.flush()
        free = shutil.disk_usage(folder).free
        present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if free + present < needed_bytes:
        raise FoundryError(
            f"Too little room on the disk of {folder}: its checkpoints and the model need {needed_bytes / _GIB:.2f} "
            f"GiB, {(free + present) / _GIB:.2f} GiB are free.",
            hint="Free some space, lower keep_checkpoints, or work in a folder on a larger disk.",
            exit_code=1,
        )


@contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """Turns errors of writing `folder` into errors for the user; other exceptions pass unchanged.

    Python, safetensors and torch each have their own exception for a full disk, and for too little memory.

    Raises:
        FoundryError: Names the folder, and what to do.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        # Memory first: a writer that gets none raises an error of writing.
        if memory := explain_memory_error(error):
            raise memory from error
        number = _error_number(error)
        if number is None and not (type(error) is RuntimeError and _TORCH_WRITER.search(str(error))):
            raise
        raise _explanation(number, folder) from error


def _error_number(error: Exception) -> int | None:
    """Returns the system's number of an error (errno); None if it has none."""
    if isinstance(error, OSError):
        return error.errno
    match = _OS_ERROR.search(str(error))
    return int(match[1]) if match else None


def _explanation(number: int | None, folder: Path) -> FoundryError:
    explained = explain_os_error(OSError(number, "", str(folder))) if number else None
    if explained:
        return explained
    if number in _NO_FOLDER:
        return FoundryError(
            f"Not a folder that can be written: {folder}",
            hint="Something on its path is a file, or it was removed meanwhile; choose another folder.",
            exit_code=1,
        )
    try:
        free = f"{shutil.disk_usage(folder).free / _GIB:.2f} GiB are free on its disk"
    except OSError:
        free = "its disk does not answer"
    return FoundryError(
        f"A file could not be written whole in {folder}; {free}.",
        hint="Free some space, or raise the limits on files (`ulimit -f`, a quota), and run the same command again; "
        "finished work is kept.",
        exit_code=1,
    )
