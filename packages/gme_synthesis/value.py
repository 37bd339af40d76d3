"""Synthetic examples made comparable with those by rules: same sources, same instructions, so one mixture fits both."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from gme_data.examples import Example, read_examples, write_examples
from gme_data.steps import Counts, StepContext
from gme_synthesis.assembly import NAMED_RECIPES, PICTURED_RECIPES
from gme_synthesis.value_config import DefaultSourcesConfig, TrainingSetConfig

_RECIPES = {recipe.task_type: recipe for recipe in (*NAMED_RECIPES, *PICTURED_RECIPES)}
WRITTEN_SOURCES = frozenset(recipe.source for recipe in _RECIPES.values())
"""Sources of the default training set that are questions written by rules."""
_FROM = frozenset({"question", "page", "illustrated", "picture-question", "picture-question-illustrated"})


def as_default_sources(examples: Iterable[Example]) -> Iterator[Example]:
    """The questions among `examples`, under source and instruction of the default set's task of the same type."""
    for example in examples:
        if example.source in _FROM:
            recipe = _RECIPES[example.task_type]
            yield replace(example, source=recipe.source, instruction=recipe.instruction)


def write_set(config: TrainingSetConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write the examples of the input ``default``, with those that were written by rules or without."""
    examples = [
        example
        for example in read_examples(inputs["default"] / "train")
        if config.templates or example.source not in WRITTEN_SOURCES
    ]
    write_examples(context.staging / "train", examples)
    return {"examples": len(examples)}


def write_own(_: DefaultSourcesConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write the examples of the input ``own`` under the names of the default sources, with their pictures."""
    examples = list(as_default_sources(read_examples(inputs["own"] / "train")))
    write_examples(context.staging / "train", examples)
    shutil.copytree(inputs["own"] / "images", context.staging / "images", dirs_exist_ok=True)
    return {"examples": len(examples)}
