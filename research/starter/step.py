"""The starter's data as a step over a built Atlas. It stands outside the default pipeline, which needs none of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gme_data.steps import Counts, StepContext
from research.starter.build import build
from research.starter.config import StarterConfig


def run(config: StarterConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Build the data from the input ``corpus`` into the staging folder."""
    return build(config, inputs["corpus"], config.downloads, context.staging)
