"""The starter's data as a step over a built Atlas. It stands outside the default pipeline, which needs none of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from atlas.starter.build import build
from atlas.starter.config import StarterConfig
from gme_data.manifest import require
from gme_data.steps import Outcome, Step, StepContext, execute

CORPUS = "data/atlas"


def make_step(downloads: Path) -> Step:
    """The step that keeps package files in `downloads`."""

    def run(config: StarterConfig, inputs: Mapping[str, Path], context: StepContext) -> Mapping[str, float]:
        return build(config, inputs["corpus"], downloads, context.staging)

    return Step("starter-data", "data/starter", run)


def publish(config: StarterConfig, downloads: Path, workspace: Path) -> Outcome:
    """Build ``data/starter`` of a workspace from its Atlas, unless it is there.

    Raises:
        FoundryError: Atlas is missing or damaged; and see `build`.
    """
    folder = workspace / CORPUS
    corpus = Outcome("corpus", folder, require(folder, "atlas build"), reused=True)
    return execute(make_step(downloads), config, {"corpus": corpus}, workspace)
