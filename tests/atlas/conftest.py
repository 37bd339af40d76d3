from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.shared import build_once

from atlas.album import Album
from atlas.assemble import assemble
from atlas.build import build
from atlas.config import AtlasConfig
from atlas.world import World

SMALL = AtlasConfig(places=30, families=60, queries=40, pictograph_pool=60, edit_pool=80)


@pytest.fixture(scope="session")
def small_config() -> AtlasConfig:
    return SMALL


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(tmp_path_factory, "atlas", partial(build, SMALL))


@pytest.fixture(scope="session")
def small_world(small_atlas: Path) -> World:
    # The scratch of the finished build spares drawing the pictures again.
    return assemble(SMALL, Album(SMALL.picture_size, small_atlas / ".album"))
