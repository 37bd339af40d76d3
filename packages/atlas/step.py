"""Atlas as the first step of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from atlas.build import build
from atlas.config import AtlasConfig
from gme_data.steps import StepContext


def run(config: AtlasConfig, _inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Builds Atlas into the staging folder and returns the counts of what is in it."""
    return build(config, context.staging)
