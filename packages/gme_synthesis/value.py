"""Synthetic examples made comparable with those by rules: same sources, same instructions, so one mixture fits both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gme_data.examples import Example
from gme_synthesis.assembly import NAMED_RECIPES, PICTURED_RECIPES

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
