"""Reads every dataset into pandas frames and answers what several suites ask: which split owns a group or a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gme_data.examples import Example, read_examples
from gme_data.parquet import read_table
from gme_data.tasks import CORPUS_SCHEMA, QRELS_SCHEMA, QUERIES_SCHEMA, TaskCard, list_tasks, load_card

_SPLITS = ("train", "dev", "test")


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
class Owners:
    """Which split owns each entity group and each picture. What several splits share counts as the most held out."""

    groups: dict[str, str]
    pictures: dict[str, str]


def read_corpus(folder: Path) -> Corpus:
    """Read ``<folder>/*.parquet``. Raises `FoundryError` for a missing or corrupt table."""
    frames = {name: read_table(folder / f"{name}.parquet").to_pandas() for name in Corpus.__dataclass_fields__}
    return Corpus(**frames)


def read_tasks(folder: Path) -> list[Task]:
    """All tasks of ``<folder>/<split>/<name>``, dev before test."""
    return [_task(path) for split in ("dev", "test") for path in list_tasks(folder / split)]


def read_training(folder: Path) -> list[Example]:
    """The synthetic training set."""
    return read_examples(folder / "train")


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


def expected_modalities(task_type: str) -> tuple[str, str]:
    """Modalities of query and document of a task type; a visual document is a picture."""
    query, _, document = task_type.partition("->")
    return query, "I" if document == "VD" else document
