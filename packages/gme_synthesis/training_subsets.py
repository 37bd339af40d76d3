"""Training sets of the data-value comparison: the supplied or the generated part of a synthetic dataset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from gme_data.examples import read_examples, write_examples
from gme_data.steps import Counts, StepContext
from gme_synthesis.corpus.atlas import RECIPES
from gme_synthesis.corpus.store import IMAGES
from gme_synthesis.training_subset_config import TrainingSubsetConfig

GENERATED_SOURCES = frozenset(recipe.source for recipe in RECIPES)
"""Sources whose examples are generated questions, whichever writer generated them."""


def write_subset(config: TrainingSubsetConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes those examples of the input ``synthetic`` that the config includes, and all pictures of the input."""
    synthetic = inputs["synthetic"]
    is_included = {True: config.generated, False: config.supplied}
    examples = [
        example for example in read_examples(synthetic / "train") if is_included[example.source in GENERATED_SOURCES]
    ]
    write_examples(context.staging / "train", examples)
    shutil.copytree(synthetic / IMAGES, context.staging / IMAGES, dirs_exist_ok=True)
    return {"examples": len(examples)}
