"""A small Atlas, built once for all workers of a test run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support.shared import build_once

from atlas.build import build
from atlas.config import AtlasConfig

SMALL_ATLAS = AtlasConfig(places=30, families=60, queries=40, pictograph_pool=60, edit_pool=80)


def build_small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the corpus."""
    return build_once(tmp_path_factory, "atlas", partial(build, SMALL_ATLAS))
