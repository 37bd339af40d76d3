"""The secret of a workspace's Prefect: made once, for its user alone, and refused if somebody was at it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.secret import secret_path, workspace_secret
from gme_data.errors import FoundryError


def test_it_is_made_once_and_readable_by_its_user_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: workspace_secret(tmp_path), range(16)))
    assert made == {workspace_secret(tmp_path)}
    assert len(made.pop()) > 40
    assert secret_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in secret_path(tmp_path).parent.iterdir()] == [secret_path(tmp_path).name]
    assert workspace_secret(tmp_path / "another") != workspace_secret(tmp_path)


@pytest.mark.parametrize("content", [b"", b"gme:short", b"\xff" * 50, b"gme:" + b"A" * 43 + b"\nmore", b"x" * 10_000])
def test_another_content_is_refused(tmp_path: Path, content: bytes) -> None:
    workspace_secret(tmp_path)
    secret_path(tmp_path).write_bytes(content)
    with pytest.raises(FoundryError, match="its content was changed"):
        workspace_secret(tmp_path)


def test_one_that_others_can_read_is_refused(tmp_path: Path) -> None:
    workspace_secret(tmp_path)
    secret_path(tmp_path).chmod(0o644)
    with pytest.raises(FoundryError, match="others can read it"):
        workspace_secret(tmp_path)


def test_no_link_and_no_pipe(tmp_path: Path) -> None:
    path = secret_path(tmp_path)
    path.parent.mkdir(parents=True)
    for target in (tmp_path / "nothing", tmp_path):
        path.symlink_to(target)
        with pytest.raises(FoundryError, match="does not hold the secret"):
            workspace_secret(tmp_path)
        path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(FoundryError, match="no regular file"):
        workspace_secret(tmp_path)
