"""Examples from drawings that stayed and from glosses.

Knows pairs and wordings. What may be in them was decided before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from atlas.choice import seeded_choice, seeded_hash, seeded_sample
from atlas.drawings import STYLES
from atlas.licences import combine
from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from research.starter.config import StarterConfig
from research.starter.drawings import Drawing
from research.starter.heldout import HeldOut
from research.starter.instructions import INSTRUCTIONS
from research.starter.wordnet import Synset

_ID_LENGTH = 24
_SHORTEST_GLOSS = 9  # characters
_OWN = "atlas-"  # styles of Atlas itself: what it pairs and names alone is not repeated
_ASKED_STYLES = 4
"""Drawings that the English name of a thing is asked with; its other names are asked with one."""
_PAIRED = {"emoji": "starter-emoji", "icon": "starter-icon", "flag": "starter-flag"}
_NAMED = {
    "emoji": "starter-name",
    "icon": "starter-icon-name",
    "flag": "starter-flag-description",
    "photo": "starter-photo",
}
_QUESTIONS = (
    "What is the meaning of {}?", "What does {} mean?", "Define {}.", "{} meaning", "What is {}?",
    "definition of {}", "Tell me about {}.", "{}: what is that?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A drawing that is in the data, under its image id."""

    drawing: Drawing
    image: str


def picture_examples(shown: Sequence[Shown], config: StarterConfig) -> Iterator[Example]:
    """Pairs of drawings (I->I) and of drawings and names (T->I, I->T)."""
    by_entity: dict[tuple[str, str], list[Shown]] = defaultdict(list)
    for one in shown:
        by_entity[one.drawing.kind, one.drawing.entity].append(one)
    for (kind, _), ones in sorted(by_entity.items()):
        if kind in _PAIRED:
            yield from _pairs(_PAIRED[kind], ones, config)
        yield from _names(_NAMED[kind], ones, config)


def _pairs(source: str, ones: Sequence[Shown], config: StarterConfig) -> Iterator[Example]:
    pairs = [pair for pair in combinations(ones, 2) if not all(_is_own(one) for one in pair)]
    chosen = seeded_sample(
        pairs, config.pairs_per_entity, config.seed, lambda p: f"{p[0].drawing.source}|{p[1].drawing.source}"
    )
    for pair in chosen:
        first, second = pair if seeded_hash(config.seed, "turn", pair[0].image, pair[1].image) % 2 else pair[::-1]
        yield _example(source, "I->I", Item(image=first.image), Item(image=second.image), [first, second])


def _is_own(one: Shown) -> bool:
    return one.drawing.style.startswith(_OWN)


def _names(source: str, ones: Sequence[Shown], config: StarterConfig) -> Iterator[Example]:
    drawn = [one for one in ones if one.drawing.names and not _is_own(one)]
    order = seeded_sample(drawn, len(drawn), config.seed, lambda one: one.drawing.source)
    asked: set[tuple[str, str]] = set()
    for number, one in enumerate(order):
        texts = dict.fromkeys(text for label, text in one.drawing.names if label == "en" or number == 0)
        for text in texts if number < _ASKED_STYLES else ():
            if (text, one.image) not in asked:
                asked.add((text, one.image))
                yield _example(source, "T->I", Item(text), Item(image=one.image), [one])
        if number < _ASKED_STYLES:
            yield _example(source, "I->T", Item(image=one.image), Item(one.drawing.names[0][1]), [one])


def _example(source: str, task_type: str, query: Item, positive: Item, ones: Sequence[Shown]) -> Example:
    drawing = ones[0].drawing
    licence = combine(*(one.drawing.licence for one in ones))
    return make_example(source, task_type, query, positive, drawing.entity_group, drawing.batch_key, licence, None)


def make_example(
    source: str, task_type: str, query: Item, positive: Item, group: str, batch_key: str, licence: str,
    answer: str | None,
) -> Example:  # fmt: skip
    """A training example of a source of the starter, under an id made of what is in it."""
    sides = [[item.text, item.image] for item in (query, positive)]
    return Example(
        id=sha256_json([source, task_type, *sides])[:_ID_LENGTH],
        task_type=task_type,
        source=source,
        instruction=INSTRUCTIONS[source],
        query=query,
        positive=positive,
        negatives=(),
        entity_group=group,
        batch_key=batch_key,
        answer=answer,
        licence=licence,
        split="train",
    )


def gloss_examples(
    synsets: Iterable[Synset], licence: str, held_out: HeldOut, config: StarterConfig, drops: Counter[str]
) -> Iterator[Example]:
    """Questions about words with the passage that answers, and sentences with the definition they rest on (T->T)."""
    made = []
    for synset in synsets:
        if len(synset.gloss) < _SHORTEST_GLOSS:
            drops["gloss: no gloss to speak of"] += 1
        elif any(map(held_out.called, synset.words)):
            drops["gloss: held-out name"] += 1
        else:
            for example in _glosses(synset, licence, config):
                texts = [item.text or "" for item in (example.query, example.positive)]
                if any(held_out.named(text) or held_out.tells_of_place(text) for text in texts):
                    drops["gloss: names something held out"] += 1
                else:
                    made.append(example)
    yield from seeded_sample(made, config.texts, config.seed, lambda example: example.id)


def _glosses(synset: Synset, licence: str, config: StarterConfig) -> Iterator[Example]:
    passage = f"{_sentence(synset.words[0])} {_sentence(synset.category)} {_sentence(synset.gloss)}"
    if len(synset.words) > 1:
        passage += f" Also called {', '.join(synset.words[1:4])}."
    for word in synset.words[:2]:
        if word in synset.first_for:
            question = seeded_choice(_QUESTIONS, config.seed, "question", synset.id, word).format(word)
            yield _text("starter-gloss", question, passage, synset, licence)
    for sentence in synset.examples[:1]:
        yield _text("starter-example", sentence, f"{synset.words[0]}: {synset.gloss}", synset, licence)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text(source: str, query: str, positive: str, synset: Synset, licence: str) -> Example:
    group, answer = f"meaning:{synset.id}", "; ".join(synset.words)
    return make_example(source, "T->T", Item(query), Item(positive), group, synset.category, licence, answer)


def atlas_drawings(held_out: HeldOut, licences: Mapping[str, str]) -> Iterator[Shown]:
    """Atlas's own trained drawings and flags, to be paired with those of other sets."""
    for row in held_out.trained.values():
        for style in STYLES:
            yield _own("emoji", style, row[style], row["id"], row["entity_group"], row["family"], licences)
    for row in held_out.places:
        if row["split"] == "train":
            for style in STYLES:
                image = row[f"flag_{style}"]
                yield _own("flag", style, image, row["place_id"], row["entity_group"], row["region"], licences)


def _own(kind: str, style: str, image: str, entity: str, group: str, sort: str, licences: Mapping[str, str]) -> Shown:
    own = f"{_OWN}{style}"
    return Shown(Drawing(kind, f"{own}/{image}", own, entity, group, sort, (), licences[image], bytes), image)
