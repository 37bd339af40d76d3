"""A release in miniature: a workspace with a registered model, a clean checkout, a key, and what was made of them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from release_miniature import build_workspace

from gme_release.config import ReleaseConfig
from gme_release.registry.registration import register
from gme_release.release.create import Release, create_release
from gme_release.release.signing import make_key
from gme_release.settings import local_database


@dataclass(frozen=True)
class Finished:
    workspace: Path
    checkout: Path
    key: Path
    public: Path
    release: Release

    def make(self, tag: str, **changes: object) -> Release:
        return create_release(self.workspace, ReleaseConfig(), tag, self.key, checkout=self.checkout, **changes)  # type: ignore[arg-type]


def make_checkout(folder: Path) -> Path:
    """A clean one, with a lock file."""
    folder.mkdir()
    (folder / "requirements.txt").write_text("# pins\nnumpy==2.4.6\nuvicorn[standard]==0.54.0 ; python_version > '3'\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "."]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def release_in(home: Path, empty_database: Path) -> Finished:
    """Everything below `home`."""
    checkout, workspace = make_checkout(home / "checkout"), home / "workspace"
    local_database(workspace).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(workspace))
    register(workspace, ReleaseConfig(), build_workspace(workspace))
    key = home / "keys" / "release.pem"
    public = make_key(key)
    made = create_release(workspace, ReleaseConfig(), "v1", key, checkout=checkout)
    return Finished(workspace, checkout, key, public, made)
