"""Reads every dataset into pandas frames and answers what several suites ask: which split owns a group or a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gme_data.atlas_tables import columns_of
from gme_data.examples import SCHEMA, Example
from gme_data.parquet import read_shards, read_table
from gme_data.tasks import CORPUS_SCHEMA, QRELS_SCHEMA, QUERIES_SCHEMA, TaskCard, list_tasks, load_card

_SPLITS = ("train", "dev", "test")
_LOOKED_AT = {
    "places": "place_id name aliases entity_group split flag_twemoji flag_openmoji map locator licence",
    "passages": "id place_id text page entity_group split licence",
    "facts": "id field value passage_id entity_group split licence",
    "wordings": "field split kind template",
    "pictographs": "id base_id gender twemoji openmoji entity_group split licence",
    "imagined": "place_id name entity_group split flag_flat flag_outlined licence",
}
"""Columns that suites are built from."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The tables of the corpus as frames."""

    places: pd.DataFrame
    passages: pd.DataFrame
    facts: pd.DataFrame
    wordings: pd.DataFrame
    pictographs: pd.DataFrame
    imagined: pd.DataFrame

    def grouped(self) -> tuple[pd.DataFrame, ...]:
        """The tables whose rows belong to an entity group and a split."""
        return self.places, self.passages, self.facts, self.pictographs, self.imagined


@dataclass(frozen=True, slots=True)
class Task:
    """One task as frames, read as they are: a row without content or a broken link is for the suites to find."""

    card: TaskCard
    corpus: pd.DataFrame
    queries: pd.DataFrame
    qrels: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Training:
    """The training set: its examples, and the rows that are none, since query, positive or a negative is nothing."""

    examples: list[Example]
    blank: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Owners:
    """Which split owns each entity group and each picture. What several splits share counts as the most held out."""

    groups: dict[str, str]
    pictures: dict[str, str]


def read_corpus(folder: Path) -> Corpus:
    """Read ``<folder>/*.parquet``.

    Raises:
        FoundryError: A table is missing or corrupt, or a column is missing or of another type.
    """
    frames = {
        name: read_table(folder / f"{name}.parquet", columns_of(name, columns)).to_pandas()
        for name, columns in _LOOKED_AT.items()
    }
    return Corpus(**frames)


def read_tasks(folder: Path, splits: Iterable[str] = ("dev", "test")) -> list[Task]:
    """All tasks of ``<folder>/<split>/<name>``, in the order of the splits."""
    return [_task(path) for split in splits for path in list_tasks(folder / split)]


def read_training(folder: Path) -> Training:
    """The synthetic training set.

    Raises:
        FoundryError: Shards are missing or corrupt, or a column is missing or of another type.
    """
    examples: list[Example] = []
    blank: list[dict[str, Any]] = []
    for row in read_shards(folder / "train", "examples", SCHEMA):
        try:
            examples.append(Example.from_row(row))
        except (TypeError, ValueError):  # an item needs a text or a picture
            blank.append(row)
    return Training(examples, blank)


def find_owners(corpus: Corpus) -> Owners:
    """See `Owners`."""
    groups: dict[str, str] = {}
    for frame in corpus.grouped():
        _claim(groups, zip(frame["entity_group"], frame["split"], strict=True))
    pictures: dict[str, str] = {}
    for frame, columns in _pictured(corpus):
        for column in columns:
            _claim(pictures, zip(frame[column], frame["split"], strict=True))
    return Owners(groups, pictures)


def find_held_out(tasks: Iterable[Task], examples: Iterable[Example]) -> Owners:
    """Owners where only tasks and examples say so: what a query of a task is about is held out, all else is trained on.

    A picture belongs to the entities that it stands for in a query, or as the answer to one. Where queries are held out
    alone (subset ``seen``), what they are about, what they show and their answers may be trained on.
    """
    groups: dict[str, str] = {}
    pictures: dict[str, str] = {}
    for example in examples:
        _claim(groups, [(example.entity_group, "train")])
        items = (example.query, example.positive, *example.negatives)
        _claim(pictures, [(item.image, "train") for item in items])
    for task in tasks:
        held_out = task.card.split if task.card.subset != "seen" else "train"
        answers = task.corpus["id"].isin(set(task.qrels["doc_id"]))
        _claim(groups, [(group, "train") for group in task.corpus["entity_group"]])
        _claim(groups, [(group, held_out) for group in task.queries["entity_group"]])
        _claim(pictures, [(image, "train") for image in task.corpus["image"][~answers]])
        _claim(pictures, [(image, held_out) for image in (*task.queries["image"], *task.corpus["image"][answers])])
    return Owners(groups, pictures)


def _pictured(corpus: Corpus) -> list[tuple[pd.DataFrame, tuple[str, ...]]]:
    return [
        (corpus.places, ("flag_twemoji", "flag_openmoji", "map", "locator")),
        (corpus.passages, ("page",)),
        (corpus.pictographs, ("twemoji", "openmoji")),
        (corpus.imagined, ("flag_flat", "flag_outlined")),
    ]


def _claim(owners: dict[str, str], claims: Iterable[tuple[str | None, str]]) -> None:
    for name, split in claims:
        if name and split in _SPLITS:
            owners[name] = max(owners.get(name, "train"), split, key=_SPLITS.index)


def _task(path: Path) -> Task:
    return Task(
        load_card(path),
        read_table(path / "corpus.parquet", CORPUS_SCHEMA).to_pandas(),
        read_table(path / "queries.parquet", QUERIES_SCHEMA).to_pandas(),
        read_table(path / "qrels.parquet", QRELS_SCHEMA).to_pandas(),
    )


def modality(text: object, image: object) -> str:
    """``T``, ``I``, ``IT``, or ``empty``; a text of white space is no text."""
    has_text = isinstance(text, str) and bool(text.strip())
    has_image = isinstance(image, str) and bool(image)
    return ("I" if has_image else "") + ("T" if has_text else "") or "empty"
