"""Assembly over any corpus: a candidate becomes examples of up to nine task types, each with its instruction.

T->T, T->IT and T->VD need a question that names its subject; IT->T, IT->IT and IT->I a rewritten one and a picture;
I->I, T->I and I->T pictures of the entity alone. No picture stands on both sides of an example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.assembly import combine_licences
from gme_synthesis.candidates import Candidate
from gme_synthesis.steps.entity import REFERENCE

_ID_LENGTH = 24
INSTRUCTIONS: Mapping[str, str] = {
    "question": "Retrieve a passage that answers the question.",
    "illustrated": "Find an illustrated passage that answers the question.",
    "page": "Find a screenshot of a page that answers the question.",
    "picture-question": "Retrieve a passage that answers the question about the image.",
    "picture-question-illustrated": "Retrieve an illustrated passage that answers the question about the image.",
    "name": "Find a picture of what is named.",
    "look": "Find another picture of the same thing.",
    "look-up": "Retrieve a passage about what the image shows.",
    "another-picture": "Find the picture that the text asks for, of what the image shows.",
}
"""Instruction by source; GME's benchmark words such tasks alike."""


@dataclass(frozen=True, slots=True)
class Assembler:
    """Makes the examples of a candidate.

    Attributes:
        licence: Licence by image id.
        page: Image id of the page by passage, for T->VD; empty if there is none.
        split: Split by entity group.
        per_question: Pictures used for one question, at most.
    """

    licence: Callable[[str], str]
    page: Callable[[str], str]
    split: Callable[[str], str]
    per_question: int

    def named(self, one: Candidate) -> Iterator[Example]:
        """Examples of a question that names its subject."""
        asked, told = Item(one.question), Item(one.text)
        yield self._example("question", "T->T", asked, told, one)
        if one.picture:
            yield self._example("illustrated", "T->IT", asked, Item(one.text, one.picture), one)
        if page := self.page(one.id):
            yield self._example("page", "T->VD", asked, Item(image=page), one)

    def pictured(self, one: Candidate) -> Iterator[Example]:
        """Examples with a picture in place of the name."""
        seen = list(dict.fromkeys(sight.image for sight in one.sights))[: self.per_question]
        told = Item(one.text)
        for number, image in enumerate(seen):
            others = [other for other in (one.picture, *seen) if other and other != image]
            asked = Item(one.fused, image)
            yield self._example("picture-question", "IT->T", asked, told, one)
            yield self._example("look-up", "I->T", Item(image=image), told, one)
            yield self._example("name", "T->I", Item(one.entity), Item(image=image), one)
            if others:
                # Each picture is asked with the next one, so that all stand on both sides once.
                other = others[number % len(others)]
                illustrated = Item(one.text, other)
                yield self._example("picture-question-illustrated", "IT->IT", asked, illustrated, one)
                yield self._example("look", "I->I", Item(image=image), Item(image=other), one)
                wish = Item(f"Another picture of {_reference(one)}.", image)
                yield self._example("another-picture", "IT->I", wish, Item(image=other), one)

    def _example(self, source: str, task_type: str, query: Item, positive: Item, one: Candidate) -> Example:
        items = [query.text, query.image, positive.text, positive.image]
        pictures = [self.licence(id_) for id_ in (query.image, positive.image) if id_]
        return Example(
            id=sha256_json([task_type, source, INSTRUCTIONS[source], *items])[:_ID_LENGTH],
            task_type=task_type,
            source=source,
            instruction=INSTRUCTIONS[source],
            query=query,
            positive=positive,
            negatives=(),
            entity_group=one.entity_group,
            batch_key=one.domain or one.kind or source,
            answer=one.answer or None,
            licence=combine_licences(one.licence, *pictures),
            split=self.split(one.entity_group),
        )


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
