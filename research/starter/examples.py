"""Makes training examples of the pictures that passed all filters, and of glosses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from atlas.choice import seeded_choice, seeded_hash, seeded_sample
from atlas.drawings import STYLES
from gme_data.digests import sha256_json
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.licences import combine_licences
from research.starter.candidates import Candidate
from research.starter.config import StarterDataConfig
from research.starter.held_out import HeldOutEntities
from research.starter.instructions import INSTRUCTIONS
from research.starter.wordnet import Synset

_ID_LENGTH = 24
_MIN_GLOSS = 9
"""Fewest characters of a gloss."""
_ATLAS_STYLE = "atlas-"
"""Prefix of the styles of Atlas, whose own pairs and names are in its examples already."""
_NAMED_DRAWINGS = 4
"""Drawings that are paired with the English name of an entity; its other names are paired with one."""
_PAIR_SOURCE = {"emoji": "starter-emoji", "icon": "starter-icon", "flag": "starter-flag"}
_NAME_SOURCE = {
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
class StoredPicture:
    """A candidate that was rendered and passed all filters, with its image id."""

    candidate: Candidate
    image: str


def picture_examples(pictures: Sequence[StoredPicture], config: StarterDataConfig) -> Iterator[Example]:
    """Yields pairs of drawings (I->I) and pairs of a drawing and a name (T->I, I->T)."""
    by_entity: dict[tuple[str, str], list[StoredPicture]] = defaultdict(list)
    for picture in pictures:
        by_entity[picture.candidate.kind, picture.candidate.entity].append(picture)
    for (kind, _), of_entity in sorted(by_entity.items()):
        if kind in _PAIR_SOURCE:
            yield from _pairs(_PAIR_SOURCE[kind], of_entity, config)
        yield from _names(_NAME_SOURCE[kind], of_entity, config)


def _pairs(source: str, pictures: Sequence[StoredPicture], config: StarterDataConfig) -> Iterator[Example]:
    pairs = [pair for pair in combinations(pictures, 2) if not all(_is_of_atlas(picture) for picture in pair)]
    sampled = seeded_sample(
        pairs, config.pairs_per_entity, config.seed, lambda p: f"{p[0].candidate.source}|{p[1].candidate.source}"
    )
    for pair in sampled:
        query, positive = pair if seeded_hash(config.seed, "turn", pair[0].image, pair[1].image) % 2 else pair[::-1]
        yield _example(source, "I->I", Item(image=query.image), Item(image=positive.image), [query, positive])


def _is_of_atlas(picture: StoredPicture) -> bool:
    return picture.candidate.style.startswith(_ATLAS_STYLE)


def _names(source: str, pictures: Sequence[StoredPicture], config: StarterDataConfig) -> Iterator[Example]:
    with_names = [picture for picture in pictures if picture.candidate.names and not _is_of_atlas(picture)]
    order = seeded_sample(with_names, len(with_names), config.seed, lambda picture: picture.candidate.source)
    pairs: set[tuple[str, str]] = set()
    for number, picture in enumerate(order[:_NAMED_DRAWINGS]):
        for text in dict.fromkeys(text for label, text in picture.candidate.names if label == "en" or number == 0):
            if (text, picture.image) not in pairs:
                pairs.add((text, picture.image))
                yield _example(source, "T->I", Item(text), Item(image=picture.image), [picture])
        yield _example(source, "I->T", Item(image=picture.image), Item(picture.candidate.names[0][1]), [picture])


def _example(source: str, task_type: str, query: Item, positive: Item, pictures: Sequence[StoredPicture]) -> Example:
    candidate = pictures[0].candidate
    licence = combine_licences(*(picture.candidate.licence for picture in pictures))
    return make_example(source, task_type, query, positive, candidate.entity_group, candidate.batch_key, licence, None)


def make_example(
    source: str, task_type: str, query: Item, positive: Item, group: str, batch_key: str, licence: str,
    answer: str | None,
) -> Example:  # fmt: skip
    """Makes a training example of a source of the starter; its id is a digest of its content."""
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
    synsets: Iterable[Synset], licence: str, held_out: HeldOutEntities, config: StarterDataConfig, drops: Counter[str]
) -> Iterator[Example]:
    """Yields questions about words with a passage of the gloss, and sentences with the definition of a word (T->T)."""
    examples = []
    for synset in synsets:
        if len(synset.gloss) < _MIN_GLOSS:
            drops["gloss: no gloss to speak of"] += 1
        elif any(map(held_out.has_english_name, synset.words)):
            drops["gloss: held-out name"] += 1
        else:
            for example in _glosses(synset, licence, config):
                texts = [item.text or "" for item in (example.query, example.positive)]
                if any(held_out.has_name(text) or held_out.place_mentioned_in(text) for text in texts):
                    drops["gloss: names something held out"] += 1
                else:
                    examples.append(example)
    yield from seeded_sample(examples, config.texts, config.seed, lambda example: example.id)


def _glosses(synset: Synset, licence: str, config: StarterDataConfig) -> Iterator[Example]:
    passage = f"{_sentence(synset.words[0])} {_sentence(synset.category)} {_sentence(synset.gloss)}"
    if len(synset.words) > 1:
        passage += f" Also called {', '.join(synset.words[1:4])}."
    for word in synset.words[:2]:
        # A question about a word is about its first sense; for another one the passage would be a wrong answer.
        if word in synset.first_for:
            question = seeded_choice(_QUESTIONS, config.seed, "question", synset.id, word).format(word)
            yield _text_example("starter-gloss", question, passage, synset, licence)
    for sentence in synset.examples[:1]:
        yield _text_example("starter-example", sentence, f"{synset.words[0]}: {synset.gloss}", synset, licence)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text_example(source: str, query: str, positive: str, synset: Synset, licence: str) -> Example:
    group, answer = f"meaning:{synset.id}", "; ".join(synset.words)
    return make_example(source, "T->T", Item(query), Item(positive), group, synset.category, licence, answer)


def atlas_pictures(held_out: HeldOutEntities, licences: Mapping[str, str]) -> Iterator[StoredPicture]:
    """Yields the drawings and flags of Atlas's train split, to be paired with those of other sets."""
    for row in held_out.train_pictographs.values():
        for style in STYLES:
            yield _atlas_picture("emoji", style, row[style], row["id"], row["entity_group"], row["family"], licences)
    for row in held_out.places:
        if row["split"] == "train":
            for style in STYLES:
                image, group = row[f"flag_{style}"], row["entity_group"]
                yield _atlas_picture("flag", style, image, row["place_id"], group, row["region"], licences)


def _atlas_picture(
    kind: str, style: str, image: str, entity: str, group: str, category: str, licences: Mapping[str, str]
) -> StoredPicture:
    style = f"{_ATLAS_STYLE}{style}"
    # Never rendered, since Atlas stores the picture: `bytes` stands for a renderer.
    candidate = Candidate(kind, f"{style}/{image}", style, entity, group, category, (), licences[image], bytes)
    return StoredPicture(candidate, image)
