"""The secret of a workspace's Prefect servers: random, made once, readable by its user alone."""

from __future__ import annotations

import os
import re
import secrets
import stat
import threading
from pathlib import Path

from gme_data.errors import FoundryError

_NAME = "login"
_SECRET = re.compile(r"gme:[A-Za-z0-9_-]{43}")
_MAX_BYTES = 100


def secret_path(workspace: Path) -> Path:
    """Returns the file of a workspace's secret."""
    return workspace.resolve() / "runs" / "prefect" / _NAME


def workspace_secret(workspace: Path) -> str:
    """Returns the secret, which a client sends as ``PREFECT_API_AUTH_STRING`` and a person types into the login form.

    Raises:
        FoundryError: The file holds no such secret, or others can read it.
    """
    path = secret_path(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink() and not path.exists():
        _create(path)
    return _read(path)


def _create(path: Path) -> None:
    """Writes a new secret, unless another process was faster: then its secret counts."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as handle:
            handle.write(f"gme:{secrets.token_urlsafe(32)}\n")
            handle.flush()
            os.fsync(handle.fileno())  # after a crash of the machine the file must not be empty
        try:
            os.link(part, path)  # unlike a rename, a link fails where the file exists
        except FileExistsError:
            return
    finally:
        part.unlink()


def _read(path: Path) -> str:
    try:
        # O_NOFOLLOW refuses a link, and with O_NONBLOCK a named pipe does not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(path, error.strerror or "it can't be read") from error
    with os.fdopen(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "it is no regular file")
        if status.st_mode & 0o077:
            raise _refused(path, "others can read it")
        text = handle.read(_MAX_BYTES).decode("ascii", "replace").strip()
    if not _SECRET.fullmatch(text):
        raise _refused(path, "its content was changed")
    return text


def _refused(path: Path, reason: str) -> FoundryError:
    return FoundryError(
        f"{path} does not hold the secret of this workspace's Prefect: {reason}.",
        hint="Stop what serves this workspace, delete the file, and start again: a new one is made.",
    )
