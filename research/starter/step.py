"""The starter's data as a step over a built Atlas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gme_data.steps import Counts, StepContext
from research.starter.build import build
from research.starter.config import StarterDataConfig


def run(config: StarterDataConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Builds the data from the input ``corpus`` into the staging folder and returns the counts."""
    return build(config, inputs["corpus"], config.downloads, context.staging)
