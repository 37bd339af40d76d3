"""Questions about places that do not exist: Atlas's trained passages under other names and flags.

With a hundred-odd trained places a model learns each by heart, and has nothing for one that it has not seen. A passage
that stands under many names can be found by comparing names alone (T->T), one under an invented flag only by the flag
or by what is said of it (IT->T, IT->IT). Knows texts; what is held out is told by `heldout`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atlas.choice import seeded_choice, seeded_hash
from atlas.factbook import shorten
from atlas.fields import FLAG_START
from atlas.imagined import rename_place
from atlas.licences import combine
from atlas.wordings import REFERENCES
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.parquet import read_rows
from research.starter.config import StarterConfig
from research.starter.examples import Shown, make_example
from research.starter.heldout import HeldOut
from research.starter.invented_flags import FLAT, OUTLINED
from research.starter.wordnet import Synset

_FLAG_SECTION = "Government"  # its passages end with the description of the flag
_NAME = re.compile(r"[A-Z][a-z]{2,}(?:[ -][A-Z][a-z]+){0,2}")


@dataclass(frozen=True, slots=True)
class Book:
    """What Atlas knows of its trained places, and what they may be called instead.

    Attributes:
        passages: Rows of Atlas's table.
        facts: Rows of Atlas's table, by passage.
        named: Ways to ask for a field by the name of the place, by field.
        deictic: Ways to ask for it by pointing at a picture.
        names: Of other things.
        licence: Of the names.
    """

    passages: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Sequence[Mapping[str, Any]]]
    named: Mapping[str, Sequence[str]]
    deictic: Mapping[str, Sequence[str]]
    names: Sequence[str]
    licence: str


def read_book(atlas: Path, names: Sequence[str], licence: str) -> Book:
    """Read the trained part of a built Atlas.

    Raises:
        FoundryError: A table is missing.
    """
    tables = atlas / "corpus"
    facts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    wordings: dict[str, dict[str, list[str]]] = {"named": defaultdict(list), "deictic": defaultdict(list)}
    for row in read_rows(tables / "facts.parquet"):
        if row["split"] == "train":
            facts[row["passage_id"]].append(row)
    for row in read_rows(tables / "wordings.parquet"):
        if row["split"] == "train":
            wordings[row["kind"]][row["field"]].append(row["template"])
    passages = [row for row in read_rows(tables / "passages.parquet") if row["split"] == "train"]
    return Book(passages, facts, **wordings, names=names, licence=licence)


def proper_names(synsets: Iterable[Synset], held_out: HeldOut) -> list[str]:
    """Names of places, people and kinds of living things, sorted; none that is of something held out."""
    words = {word for synset in synsets if synset.id.startswith("n") for word in synset.words}
    named = sorted(word for word in words if _NAME.fullmatch(word))
    return [name for name in named if not held_out.called(name) and not held_out.tells_of_place(name)]


def renamed_questions(book: Book, held_out: HeldOut, config: StarterConfig) -> Iterator[Example]:
    """Each trained passage under `config.names_per_passage` other names, with a question for each of its facts.

    A held-out place that a passage speaks of gets another name too.
    """
    for passage in book.passages:
        order = sorted(book.names, key=partial(seeded_hash, config.seed, passage["id"]))
        for name in order[: config.names_per_passage]:
            text = _renamed(passage, name, book, held_out, config)
            for fact in book.facts[passage["id"]]:
                wording = seeded_choice(book.named[fact["field"]], config.seed, "wording", fact["id"], name)
                licence = combine(passage["licence"], book.licence)
                yield make_example(
                    "starter-place-question", "T->T", Item(wording.format(place=name)), Item(text),
                    f"named:{name}", f"{fact['section']}/{fact['field']}", licence, None,
                )  # fmt: skip


def flag_questions(shown: Iterable[Shown], book: Book, held_out: HeldOut, config: StarterConfig) -> Iterator[Example]:
    """What is asked with an invented flag, outlined: the passage that describes it, or any passage beside it, flat.

    Args:
        shown: Invented flags; one that was refused in one of its styles is left out.
        book: Passages to put them to.
        held_out: What may not be spoken of.
        config: The seed.
    """
    government = [passage for passage in book.passages if passage["section"] == _FLAG_SECTION]
    for entity, (flat, outlined) in _in_both_styles(shown):
        described = seeded_choice(government, config.seed, "described", entity)
        name = seeded_choice(book.names, config.seed, "named", entity)
        text = _renamed(described, name, book, held_out, config).partition(" Flag: ")[0]
        said = shorten(flat.drawing.names[0][1], FLAG_START)
        yield _flag_question("starter-flag-question", described, Item(f"{text} Flag: {said}."), outlined, book, config)
        beside = seeded_choice(book.passages, config.seed, "beside", entity)
        illustrated = Item(_renamed(beside, name, book, held_out, config), flat.image)
        yield _flag_question("starter-flag-question-illustrated", beside, illustrated, outlined, book, config)


def _in_both_styles(shown: Iterable[Shown]) -> Iterator[tuple[str, tuple[Shown, Shown]]]:
    styles: dict[str, dict[str, Shown]] = defaultdict(dict)
    for one in shown:
        styles[one.drawing.entity][one.drawing.style] = one
    for entity, drawn in sorted(styles.items()):
        if len(drawn) == len((FLAT, OUTLINED)):
            yield entity, (drawn[FLAT], drawn[OUTLINED])


def _flag_question(
    source: str, passage: Mapping[str, Any], positive: Item, asked: Shown, book: Book, config: StarterConfig
) -> Example:
    flag = asked.drawing
    fact = seeded_choice(book.facts[passage["id"]], config.seed, "fact", source, flag.entity)
    wording = seeded_choice(book.deictic[fact["field"]], config.seed, "wording", source, flag.entity)
    reference = seeded_choice(REFERENCES["train"], config.seed, "reference", source, flag.entity)
    query, task_type = Item(wording.format(reference=reference), asked.image), "IT->IT" if positive.image else "IT->T"
    return make_example(
        source, task_type, query, positive,
        flag.entity_group, f"{fact['section']}/{fact['field']}",
        combine(passage["licence"], book.licence, flag.licence), None,
    )  # fmt: skip


def _renamed(passage: Mapping[str, Any], name: str, book: Book, held_out: HeldOut, config: StarterConfig) -> str:
    own = rename_place(passage["text"], passage["place_name"], name)
    return held_out.without_places(own, seeded_choice(book.names, config.seed, "neighbour", passage["id"], name))
