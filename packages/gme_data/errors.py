"""`FoundryError`, the one error that users are meant to read.

Whatever a user can cause (a typo, a missing file, a full disk) ends as a `FoundryError`: what is wrong, where, and what
to do. Any other traceback on a terminal is a defect of this program.
"""

from __future__ import annotations

import difflib
import errno
import re
import resource
from collections.abc import Iterable

from gme_data.redact import redact

EXIT_BAD_INPUT = 2
EXIT_GATE_CLOSED = 3
EXIT_INTERRUPTED = 130


class FoundryError(Exception):
    """A problem the user can act on. Its text is shown, logged and stored, so it is redacted.

    Attributes:
        hint: What to do about it, one sentence.
        exit_code: The exit status of the command that meets it.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(redact(message))
        self.hint = redact(hint) if hint else hint
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        # Keyword-only fields are lost by the default; process pools pickle errors on their way home.
        return _rebuild, (str(self), self.hint, self.exit_code)


def _rebuild(message: str, hint: str | None, exit_code: int) -> FoundryError:
    return FoundryError(message, hint=hint, exit_code=exit_code)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `` Did you mean 'x'?`` for a near miss among `known`, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


_DISK_ADVICE = {
    errno.ENAMETOOLONG: ("A name is longer than the file system takes", "Give a shorter one."),
    errno.ENOSPC: ("The disk is full", "Free some space and run the same command again; finished work is kept."),
    errno.EDQUOT: (
        "The disk quota is used up",
        "Free some space and run the same command again; finished work is kept.",
    ),
    errno.EACCES: ("Permission denied", "Make the folder writable for this user, or work in another folder."),
    errno.EPERM: ("Operation not permitted", "Make the folder writable for this user, or work in another folder."),
    errno.EROFS: ("The file system is read-only", "Work in a folder on a writable disk."),
}


_NO_MEMORY = re.compile(
    r"(can.t|cannot|could not|failed to) (allocate|create) (a )?memory|not enough memory|out of memory|bad_alloc|"
    r"can't start new thread",
    re.IGNORECASE,
)
"""The messages of torch, oneDNN, CUDA and Python, in errors of several types, when an allocation fails."""


def explain_memory_error(error: BaseException) -> FoundryError | None:
    """Turns a lack of memory into a `FoundryError`; None for errors that are about something else."""
    number = error.errno if isinstance(error, OSError) else None
    if not (isinstance(error, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(str(error))):
        return None
    # Under `ulimit -v` the machine may have plenty of memory, so the limit is named.
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    bounded = "" if limit == resource.RLIM_INFINITY else f" The process may take {limit / 2**30:.2f} GiB (`ulimit -v`)."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return FoundryError(
        f"Out of memory: {reason}.{bounded}",
        hint="Free memory, raise the limit, or take smaller batches, and run the same command again; finished work is "
        "kept.",
        exit_code=1,
    )


def explain_os_error(error: OSError) -> FoundryError | None:
    """Turns a disk problem into a `FoundryError`; None for errors that are not about the user's disk."""
    if error.errno not in _DISK_ADVICE:
        return None
    what, hint = _DISK_ADVICE[error.errno]
    where = f": {error.filename}" if error.filename else ""
    # A name that is too long is bad input; the others are faults of the machine.
    code = EXIT_BAD_INPUT if error.errno == errno.ENAMETOOLONG else 1
    return FoundryError(f"{what}{where}", hint=hint, exit_code=code)
