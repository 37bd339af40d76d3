from __future__ import annotations

from pathlib import Path

import pytest
from support.small_atlas import SMALL_ATLAS, build_small_atlas

from atlas.album import Album
from atlas.assemble import assemble
from atlas.config import AtlasConfig
from atlas.world import World


@pytest.fixture(scope="session")
def small_config() -> AtlasConfig:
    return SMALL_ATLAS


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_atlas(tmp_path_factory)


@pytest.fixture(scope="session")
def small_world(small_atlas: Path) -> World:
    # The scratch of the finished build spares drawing the pictures again.
    return assemble(SMALL_ATLAS, Album(SMALL_ATLAS.picture_size, small_atlas / ".album"))
