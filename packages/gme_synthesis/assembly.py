"""Step 6, assembly: drafts become examples of five task types, each with the instruction of its source.

A consistent question that names its place is enough for T->T and T->VD; T->IT, IT->T and IT->IT also need the pictures.
Instructions are word for word those of the benchmark tasks of the same source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.records import Draft, Fact, Passage
from gme_synthesis.world import World

_ID_LENGTH = 24
MakeItem = Callable[[Draft, Passage], Item]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a draft becomes an example of one source."""

    source: str
    task_type: str
    instruction: str
    query: MakeItem
    positive: MakeItem


def _named(draft: Draft, _: Passage) -> Item:
    return Item(text=draft.question)


def _with_flag(draft: Draft, _: Passage) -> Item:
    return Item(text=draft.fused, image=draft.flag)


def _text(_: Draft, passage: Passage) -> Item:
    return Item(text=passage.text)


def _page(_: Draft, passage: Passage) -> Item:
    return Item(image=passage.page)


def _illustrated(draft: Draft, passage: Passage) -> Item:
    return Item(text=passage.text, image=draft.illustration)


def _with_other_flag(draft: Draft, passage: Passage) -> Item:
    return Item(text=passage.text, image=draft.other_flag)


NAMED_RECIPES = (
    Recipe("place-question", "T->T", "Retrieve a passage about the place that answers the question.", _named, _text),
    Recipe(
        "page-question", "T->VD", "Find a screenshot of a page that is relevant to the user's question.", _named, _page
    ),
)
PICTURED_RECIPES = (
    Recipe(
        "illustrated-question", "T->IT", "Find an illustrated passage that answers the question.", _named, _illustrated
    ),
    Recipe(
        "flag-question",
        "IT->T",
        "Retrieve a passage that answers the question about the place whose flag is shown.",
        _with_flag,
        _text,
    ),
    Recipe(
        "flag-question-illustrated",
        "IT->IT",
        "Retrieve a flag with a passage that answers the question about the image.",
        _with_flag,
        _with_other_flag,
    ),
)


def assemble(drafts: Sequence[Draft], recipes: Sequence[Recipe], world: World) -> Iterator[Example]:
    """One example for each draft and recipe, recipe by recipe; a passage without a stored page makes no T->VD."""
    for recipe in recipes:
        for draft in drafts:
            fact = world.facts[draft.fact_id]
            passage = world.passages[fact.passage_id]
            if recipe.task_type != "T->VD" or passage.page in world.picture_licences:
                yield _example(recipe, draft, fact, passage, world)


def _example(recipe: Recipe, draft: Draft, fact: Fact, passage: Passage, world: World) -> Example:
    query, positive = recipe.query(draft, passage), recipe.positive(draft, passage)
    items = [query.text, query.image, positive.text, positive.image]
    pictures = [world.picture_licences[id_] for id_ in (query.image, positive.image) if id_]
    return Example(
        id=sha256_json([recipe.task_type, recipe.source, recipe.instruction, *items])[:_ID_LENGTH],
        task_type=recipe.task_type,
        source=recipe.source,
        instruction=recipe.instruction,
        query=query,
        positive=positive,
        negatives=(),
        entity_group=fact.entity_group,
        # The same field of other places: the hardest negatives that are surely wrong.
        batch_key=f"{fact.section}/{fact.field}",
        answer=fact.value,
        licence=combine_licences(passage.licence, *pictures),
        split="train",
    )


def combine_licences(*licences: str) -> str:
    """One SPDX expression for all parts of an example.

    Example:
        >>> combine_licences("MIT", "CC-BY-4.0 AND MIT")
        'CC-BY-4.0 AND MIT'
    """
    return " AND ".join(sorted({part for licence in licences for part in licence.split(" AND ")}))
