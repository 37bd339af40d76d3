"""A small real Atlas, built once."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from support.shared import build_once

from atlas.build import build
from atlas.config import AtlasConfig

# Helpers lie beside the tests, and the import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(tmp_path_factory, "synthesis-atlas", partial(build, AtlasConfig(places=16, families=24)))
