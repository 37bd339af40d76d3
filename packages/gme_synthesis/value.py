"""The parts of a training set that the data-value comparison tells apart: what Atlas brings, and what was written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from gme_data.examples import read_examples, write_examples
from gme_data.steps import Counts, StepContext
from gme_synthesis.corpus.atlas import RECIPES
from gme_synthesis.corpus.store import IMAGES
from gme_synthesis.value_config import TrainingSetConfig

WRITTEN_SOURCES = frozenset(recipe.source for recipe in RECIPES)
"""Sources whose examples are written questions, whoever wrote them."""


def write_set(config: TrainingSetConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write those examples of the input ``synthetic`` that the config wants, and the pictures that came with them."""
    given = inputs["synthetic"]
    wanted = {True: config.written, False: config.brought_along}
    examples = [one for one in read_examples(given / "train") if wanted[one.source in WRITTEN_SOURCES]]
    write_examples(context.staging / "train", examples)
    shutil.copytree(given / IMAGES, context.staging / IMAGES, dirs_exist_ok=True)
    return {"examples": len(examples)}
