"""Assembly: a candidate becomes examples of up to nine task types, by the recipes of its corpus.

No picture stands on both sides of an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.recipes import Recipe, Side
from gme_synthesis.steps.entity import REFERENCE

_ID_LENGTH = 24
Parts = Mapping[str, str]
"""What a side can be made of; what there is not is empty or left out."""


@dataclass(frozen=True, slots=True)
class Assembler:
    """Makes the examples of a candidate.

    Attributes:
        recipes: In this order.
        licence: Licence by image id.
        page: Image id of the page by passage; empty if there is none.
        split: Split by entity group.
        per_question: Pictures that one question is asked with, at most.
    """

    recipes: Sequence[Recipe]
    licence: Callable[[str], str]
    page: Callable[[str], str]
    split: Callable[[str], str]
    per_question: int

    def named(self, one: Candidate) -> Iterator[Example]:
        """Examples of a question that names its subject."""
        known = {"question": one.question, "passage": one.text, "beside": one.picture, "page": self.page(one.id)}
        yield from self._examples(one, known, pictured=False)

    def pictured(self, one: Candidate) -> Iterator[Example]:
        """Examples with a picture in place of the name."""
        seen = list(dict.fromkeys(sight.image for sight in one.sights))
        known = {
            "question": one.question,
            "fused": one.fused,
            "passage": one.text,
            "entity": one.entity,
            "wish": f"Another picture of {_reference(one)}.",
            "beside": one.picture,
        }
        for number, image in enumerate(seen[: self.per_question]):
            shown = {
                "sight": image,
                "other-sight": _next(seen, image, number),
                "other": _next([one.picture, *seen], image, number),
            }
            yield from self._examples(one, known | shown, pictured=True)

    def _examples(self, one: Candidate, known: Parts, *, pictured: bool) -> Iterator[Example]:
        for recipe in self.recipes:
            if recipe.pictured == pictured:
                query, positive = _item(recipe.query, known), _item(recipe.positive, known)
                if query and positive:
                    yield self._example(recipe, query, positive, one)

    def _example(self, recipe: Recipe, query: Item, positive: Item, one: Candidate) -> Example:
        items = [query.text, query.image, positive.text, positive.image]
        pictures = [self.licence(id_) for id_ in (query.image, positive.image) if id_]
        return Example(
            id=sha256_json([recipe.task_type, recipe.source, recipe.instruction, *items])[:_ID_LENGTH],
            task_type=recipe.task_type,
            source=recipe.source,
            instruction=recipe.instruction,
            query=query,
            positive=positive,
            negatives=(),
            entity_group=one.entity_group,
            batch_key=_batch_key(one) or recipe.source,
            answer=one.answer or None,
            licence=combine_licences(one.licence, *pictures),
            split=self.split(one.entity_group),
        )


def _next(pictures: Sequence[str], image: str, number: int) -> str:
    """Another picture than `image`; each is asked with the next one, so that all stand on both sides once."""
    others = [other for other in pictures if other and other != image]
    return others[number % len(others)] if others else ""


def _item(side: Side, known: Parts) -> Item | None:
    """A side of an example; None if one of its parts is missing."""
    text, image = (known.get(name, "") if name else None for name in side)
    return None if "" in (text, image) else Item(text, image)


def _batch_key(one: Candidate) -> str:
    """The same field of other entities where one is asked about: the hardest negatives that are surely wrong."""
    if one.fact:
        return "/".join(filter(None, (one.section, *one.facts)))
    return one.domain or one.kind


def combine_licences(*licences: str) -> str:
    """One SPDX expression for all parts of an example.

    Example:
        >>> combine_licences("MIT", "CC-BY-4.0 AND MIT")
        'CC-BY-4.0 AND MIT'
    """
    return " AND ".join(sorted({part for licence in licences for part in licence.split(" AND ")}))


def split_of(entity_group: str, seed: int, dev: float, test: float) -> str:
    """The split of all that is about one entity: decided by its name and the seed alone."""
    place = int(sha256_json([seed, "split", entity_group])[:12], 16) / 16**12
    return "test" if place < test else "dev" if place < test + dev else "train"


def without_ambiguous(one: Candidate, is_ambiguous: Callable[[str], bool]) -> Candidate:
    """The candidate without pictures that stand for several entity groups, of which one may be held out."""
    sights = tuple(sight for sight in one.sights if not is_ambiguous(sight.image))
    picture = one.picture if one.picture and not is_ambiguous(one.picture) else ""
    return replace(one, sights=sights, picture=picture)


def _reference(one: Candidate) -> str:
    """What stands for the name, "this plant": by what the corpus says it is, else as the rewritten question has it."""
    if one.kind:
        return f"this {one.kind}"
    found = REFERENCE.search(one.fused)
    return found.group().casefold() if found else "this"
