"""One small pipeline, run as a user would, for all tests of this folder."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from support.small import HERE, Small


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Small:
    workspace = tmp_path_factory.mktemp("small")
    shutil.copy(HERE / "promotion.yaml", workspace)
    return Small(workspace)


@pytest.fixture(scope="session")
def finished(empty: Small) -> tuple[Small, dict[str, Any]]:
    """The workspace after `gme pipeline`, and what it printed."""
    return empty, empty.json("pipeline")
