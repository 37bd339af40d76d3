"""Questions about places that do not exist: Atlas's trained passages under names of other things (T->T).

With a hundred-odd trained places a model learns each by heart, and has nothing for one that it has not seen. A passage
that stands under many names can be found by comparing names alone. Knows texts; what is held out is told by `heldout`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.choice import pick, sample
from atlas.licences import combine
from atlas.starter.config import StarterConfig
from atlas.starter.examples import make_example
from atlas.starter.heldout import HeldOut
from atlas.starter.wordnet import Synset
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.parquet import read_rows

_NAME = re.compile(r"[A-Z][a-z]{2,}(?:[ -][A-Z][a-z]+){0,2}")


@dataclass(frozen=True, slots=True)
class Book:
    """What Atlas knows of its trained places.

    Attributes:
        passages: Rows of Atlas's table.
        facts: Rows of Atlas's table, by passage.
        wordings: Ways to ask for a field by the name of the place, by field.
    """

    passages: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Sequence[Mapping[str, Any]]]
    wordings: Mapping[str, Sequence[str]]


def read_book(atlas: Path) -> Book:
    """Read the trained part of a built Atlas.

    Raises:
        FoundryError: A table is missing.
    """
    tables = atlas / "corpus"
    facts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    wordings: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(tables / "facts.parquet"):
        if row["split"] == "train":
            facts[row["passage_id"]].append(row)
    for row in read_rows(tables / "wordings.parquet"):
        if row["split"] == "train" and row["kind"] == "named":
            wordings[row["field"]].append(row["template"])
    passages = [row for row in read_rows(tables / "passages.parquet") if row["split"] == "train"]
    return Book(passages, facts, wordings)


def proper_names(synsets: Iterable[Synset], held_out: HeldOut) -> list[str]:
    """Names of places, people and kinds of living things, sorted; none that is of something held out."""
    words = {word for synset in synsets if synset.id.startswith("n") for word in synset.words}
    named = sorted(word for word in words if _NAME.fullmatch(word))
    return [name for name in named if not held_out.called(name) and not held_out.tells_of_place(name)]


def renamed_examples(
    book: Book, names: Sequence[str], licence: str, held_out: HeldOut, config: StarterConfig
) -> Iterator[Example]:
    """Each trained passage under `config.names_per_passage` other names, with a question for each of its facts.

    A held-out place that a passage speaks of gets another name too.

    Args:
        book: Trained passages, facts and wordings.
        names: What places may be called.
        licence: Of the names.
        held_out: What may not be spoken of.
        config: How many names; the seed.
    """
    for passage in book.passages:
        for name in sample(names, config.names_per_passage, config.seed, lambda name: f"{passage['id']}|{name}"):  # noqa: B023
            neighbour = pick(names, config.seed, "neighbour", passage["id"], name)
            text = _renamed(passage, name, held_out, neighbour)
            for fact in book.facts[passage["id"]]:
                wording = pick(book.wordings[fact["field"]], config.seed, "wording", fact["id"], name)
                yield make_example(
                    "starter-place-question", "T->T", Item(wording.format(place=name)), Item(text),
                    f"named:{name}", f"{fact['section']}/{fact['field']}", combine(passage["licence"], licence), None,
                )  # fmt: skip


def _renamed(passage: Mapping[str, Any], name: str, held_out: HeldOut, neighbour: str) -> str:
    own = re.sub(rf"\b{re.escape(passage['place_name'])}\b", name, passage["text"])
    return held_out.without_places(own, neighbour)
