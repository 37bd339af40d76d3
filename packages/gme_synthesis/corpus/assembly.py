"""Assembly: a candidate becomes examples of up to nine task types, by the recipes of its corpus.

No picture stands on both sides of an example: the picture alone would give the answer away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.licences import combine_licences
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.recipes import Recipe, Side
from gme_synthesis.steps.entity import REFERENCE

_ID_LENGTH = 24
PartValues = Mapping[str, str]
"""Text or image id of each part that a side can be made of; a part that is missing is empty or left out."""


@dataclass(frozen=True, slots=True)
class Assembler:
    """Makes the examples of a candidate.

    Attributes:
        recipes: The recipes, in the order of the examples.
        licence: Licence by image id.
        page: Image id of the page by passage; empty if there is none.
        split: Split by entity group.
        max_images: Images of the entity that one question is asked with, at most.
    """

    recipes: Sequence[Recipe]
    licence: Callable[[str], str]
    page: Callable[[str], str]
    split: Callable[[str], str]
    max_images: int

    def named_examples(self, candidate: Candidate) -> Iterator[Example]:
        """Yields the examples of a question that names its subject."""
        values = {
            "question": candidate.question,
            "passage": candidate.text,
            "illustration": candidate.picture,
            "page": self.page(candidate.id),
        }
        yield from self._examples(candidate, values, pictured=False)

    def pictured_examples(self, candidate: Candidate) -> Iterator[Example]:
        """Yields the examples with an image in place of the name, for up to `max_images` images."""
        images = list(dict.fromkeys(entity_image.image for entity_image in candidate.entity_images))
        values = {
            "question": candidate.question,
            "fused": candidate.fused,
            "passage": candidate.text,
            "entity": candidate.entity,
            "request": f"Another picture of {_reference(candidate)}.",
            "illustration": candidate.picture,
        }
        for number, image in enumerate(images[: self.max_images]):
            image_values = {
                "entity-image": image,
                "other-entity-image": _other_image(images, image, number),
                "other-image": _other_image([candidate.picture, *images], image, number),
            }
            yield from self._examples(candidate, values | image_values, pictured=True)

    def _examples(self, candidate: Candidate, values: PartValues, *, pictured: bool) -> Iterator[Example]:
        for recipe in self.recipes:
            if recipe.pictured == pictured:
                query, positive = _item(recipe.query, values), _item(recipe.positive, values)
                if query and positive:
                    yield self._example(recipe, query, positive, candidate)

    def _example(self, recipe: Recipe, query: Item, positive: Item, candidate: Candidate) -> Example:
        sides = [query.text, query.image, positive.text, positive.image]
        # An example may be used only as each of its parts may be.
        licences = [self.licence(id_) for id_ in (query.image, positive.image) if id_]
        return Example(
            # A digest of the content, so that the same example has the same id in every run.
            id=sha256_json([recipe.task_type, recipe.source, recipe.instruction, *sides])[:_ID_LENGTH],
            task_type=recipe.task_type,
            source=recipe.source,
            instruction=recipe.instruction,
            query=query,
            positive=positive,
            negatives=(),
            entity_group=candidate.entity_group,
            batch_key=_batch_key(candidate) or recipe.source,
            answer=candidate.answer or None,
            licence=combine_licences(candidate.licence, *licences),
            split=self.split(candidate.entity_group),
        )


def _other_image(images: Sequence[str], image: str, number: int) -> str:
    """Returns another image than `image`, the entity's image of this number; empty if there is none.

    Each image gets the next of the others, so that all stand on both sides once.
    """
    others = [other for other in images if other and other != image]
    return others[number % len(others)] if others else ""


def _item(side: Side, values: PartValues) -> Item | None:
    """Returns a side of an example; None if one of its parts is missing."""
    text, image = (values.get(part, "") if part else None for part in side)
    return None if "" in (text, image) else Item(text, image)


def _batch_key(candidate: Candidate) -> str:
    """Returns what the examples of one batch share: the field that is asked about, else the class of the entity.

    The same field of other entities gives the hardest in-batch negatives that are surely wrong.
    """
    if candidate.fact:
        return "/".join(filter(None, (candidate.section, *candidate.facts)))
    return candidate.domain or candidate.kind


def split_of(entity_group: str, seed: int, dev: float, test: float) -> str:
    """Returns the split of all examples about one entity: decided by its group and the seed alone.

    Args:
        entity_group: The entity.
        seed: Seed of the run.
        dev: Share of the groups for dev.
        test: Share of the groups for test.
    """
    position = int(sha256_json([seed, "split", entity_group])[:12], 16) / 16**12  # uniform in [0, 1)
    return "test" if position < test else "dev" if position < test + dev else "train"


def drop_ambiguous_images(candidate: Candidate, is_ambiguous: Callable[[str], bool]) -> Candidate:
    """Returns the candidate without images that stand for several entity groups, of which one may be held out."""
    entity_images = tuple(image for image in candidate.entity_images if not is_ambiguous(image.image))
    picture = candidate.picture if candidate.picture and not is_ambiguous(candidate.picture) else ""
    return replace(candidate, entity_images=entity_images, picture=picture)


def _reference(candidate: Candidate) -> str:
    """Returns what stands for the name, such as "this plant": by the kind, else as the rewritten question has it."""
    if candidate.kind:
        return f"this {candidate.kind}"
    match = REFERENCE.search(candidate.fused)
    return match.group().casefold() if match else "this"
