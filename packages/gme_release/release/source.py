"""The code of a release: the commit of a clean checkout, and the lock file that pins every package."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError

CHECKOUT = Path(__file__).resolve().parents[3]
LOCK = "requirements.txt"
"""Name of the lock file."""


def clean_commit(checkout: Path) -> str:
    """Returns the commit that is checked out.

    Raises:
        FoundryError: It is no git checkout, or files differ from the commit.
    """
    changed = _git(checkout, "status", "--porcelain").splitlines()
    if changed:
        first = ", ".join(line[3:] for line in changed[:5])
        raise FoundryError(
            f"{checkout} differs from its commit in {len(changed)} file(s): {first}",
            hint="A run writes data.dvc, checkpoints.dvc and metrics/, which belong to its release: `git add` and "
            "commit them, take away what does not belong, then release.",
        )
    return _git(checkout, "rev-parse", "HEAD").strip()


def lock_file(checkout: Path) -> Path:
    """Returns the lock file.

    Raises:
        FoundryError: It is missing.
    """
    path = checkout / LOCK
    if not path.is_file():
        raise FoundryError(f"{path} is missing: nothing says which packages made the model.", hint="Use a checkout.")
    return path


def lock_digest(checkout: Path) -> str:
    """Returns the sha256 of the lock file."""
    return sha256_file(lock_file(checkout))


def describe_platform() -> dict[str, str]:
    """Returns interpreter, platform and C library, without the name of the machine."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip(),
    }


def _git(checkout: Path, *arguments: str) -> str:
    completed = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise FoundryError(
            f"{checkout} is no git checkout, so no commit can be named: {completed.stderr.strip()}",
            hint="Release from a clone of the repository.",
        )
    return completed.stdout
