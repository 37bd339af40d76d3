"""Fixtures: a finished workspace in miniature with an MLflow database that has its tables."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.shared import build_once

from gme_release.config import ReleaseConfig
from gme_release.run_facts import RunFacts
from gme_release.settings import local_database

# Helpers lie beside the tests, and the import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from release_miniature import build_workspace
from released_miniature import Finished, release_in


@pytest.fixture
def config() -> ReleaseConfig:
    return ReleaseConfig()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables; making them takes seconds, so tests copy this one."""
    from gme_release.tracking.client import open_client

    return local_database(build_once(tmp_path_factory, "database", open_client))


@pytest.fixture
def facts(tmp_path: Path, empty_database: Path) -> RunFacts:
    local_database(tmp_path).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(tmp_path))
    return build_workspace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Finished:
    return release_in(tmp_path_factory.mktemp("release"), empty_database)


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    shutil.copytree(finished.release.folder, tmp_path / "copy")
    return tmp_path / "copy"
