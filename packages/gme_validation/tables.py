"""Reads every dataset into pandas frames, and finds the split of each entity group and each picture."""

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
_COLUMNS = {
    "places": "place_id name aliases entity_group split flag_twemoji flag_openmoji map locator licence",
    "passages": "id place_id text page entity_group split licence",
    "facts": "id field value passage_id entity_group split licence",
    "wordings": "field split kind template",
    "pictographs": "id base_id gender twemoji openmoji entity_group split licence",
    "imagined": "place_id name entity_group split flag_flat flag_outlined licence",
}
"""Columns of each table that are read."""


@dataclass(frozen=True, slots=True)
class AtlasFrames:
    """The tables of an Atlas as frames."""

    places: pd.DataFrame
    passages: pd.DataFrame
    facts: pd.DataFrame
    wordings: pd.DataFrame
    pictographs: pd.DataFrame
    imagined: pd.DataFrame

    def grouped(self) -> tuple[pd.DataFrame, ...]:
        """Returns the tables whose rows belong to an entity group and a split."""
        return self.places, self.passages, self.facts, self.pictographs, self.imagined


@dataclass(frozen=True, slots=True)
class TaskFrames:
    """One task as frames. They are read unchecked: suites report rows without content and broken links."""

    card: TaskCard
    corpus: pd.DataFrame
    queries: pd.DataFrame
    qrels: pd.DataFrame


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The examples of a training set, and the blank rows: those with a query, positive or negative without content."""

    examples: list[Example]
    blank: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EntitySplits:
    """The split of each entity group and each picture; of several splits the last of train, dev, test counts."""

    groups: dict[str, str]
    pictures: dict[str, str]


def read_atlas(folder: Path) -> AtlasFrames:
    """Reads ``<folder>/*.parquet``.

    Raises:
        FoundryError: A table is missing or corrupt, or a column is missing or of another type.
    """
    frames = {
        name: read_table(folder / f"{name}.parquet", columns_of(name, columns)).to_pandas()
        for name, columns in _COLUMNS.items()
    }
    return AtlasFrames(**frames)


def read_tasks(folder: Path, splits: Iterable[str] = ("dev", "test")) -> list[TaskFrames]:
    """Reads all tasks of ``<folder>/<split>/<name>``, in the order of the splits."""
    return [
        TaskFrames(
            load_card(path),
            read_table(path / "corpus.parquet", CORPUS_SCHEMA).to_pandas(),
            read_table(path / "queries.parquet", QUERIES_SCHEMA).to_pandas(),
            read_table(path / "qrels.parquet", QRELS_SCHEMA).to_pandas(),
        )
        for split in splits
        for path in list_tasks(folder / split)
    ]


def read_training(folder: Path) -> TrainingSet:
    """Reads a training set from ``<folder>/train``.

    Raises:
        FoundryError: Shards are missing or corrupt, or a column is missing or of another type.
    """
    examples: list[Example] = []
    blank: list[dict[str, Any]] = []
    for row in read_shards(folder / "train", "examples", SCHEMA):
        try:
            examples.append(Example.from_row(row))
        except (TypeError, ValueError):  # an item needs a text or a picture; the suite reports how many have neither
            blank.append(row)
    return TrainingSet(examples, blank)


def atlas_splits(atlas: AtlasFrames) -> EntitySplits:
    """Returns the splits that the tables of an Atlas state."""
    groups: dict[str, str] = {}
    for frame in atlas.grouped():
        _merge(groups, zip(frame["entity_group"], frame["split"], strict=True))
    pictures: dict[str, str] = {}
    for frame, columns in (
        (atlas.places, ("flag_twemoji", "flag_openmoji", "map", "locator")),
        (atlas.passages, ("page",)),
        (atlas.pictographs, ("twemoji", "openmoji")),
        (atlas.imagined, ("flag_flat", "flag_outlined")),
    ):
        for column in columns:
            _merge(pictures, zip(frame[column], frame["split"], strict=True))
    return EntitySplits(groups, pictures)


def imported_splits(tasks: Iterable[TaskFrames], examples: Iterable[Example]) -> EntitySplits:
    """Returns splits inferred from tasks and examples, for data without a table of splits.

    An entity that a query of a task is about is held out, and so are the pictures of queries and of relevant documents.
    All else is trained on. Of a task with subset ``seen`` the queries alone are held out: their entities, pictures and
    relevant documents may be trained on.
    """
    groups: dict[str, str] = {}
    pictures: dict[str, str] = {}
    for example in examples:
        _merge(groups, [(example.entity_group, "train")])
        items = (example.query, example.positive, *example.negatives)
        _merge(pictures, [(item.image, "train") for item in items])
    for task in tasks:
        held_out = task.card.split if task.card.subset != "seen" else "train"
        relevant = task.corpus["id"].isin(set(task.qrels["doc_id"]))
        _merge(groups, [(group, "train") for group in task.corpus["entity_group"]])
        _merge(groups, [(group, held_out) for group in task.queries["entity_group"]])
        _merge(pictures, [(image, "train") for image in task.corpus["image"][~relevant]])
        _merge(pictures, [(image, held_out) for image in (*task.queries["image"], *task.corpus["image"][relevant])])
    return EntitySplits(groups, pictures)


def _merge(split_of: dict[str, str], names: Iterable[tuple[str | None, str]]) -> None:
    """Adds names with their splits; a name with several splits gets the last of train, dev, test."""
    for name, split in names:
        if name and split in _SPLITS:
            split_of[name] = max(split_of.get(name, "train"), split, key=_SPLITS.index)


def modality(text: object, image: object) -> str:
    """Returns ``T``, ``I``, ``IT``, or ``empty``; a text of white space counts as none."""
    has_text = isinstance(text, str) and bool(text.strip())
    has_image = isinstance(image, str) and bool(image)
    return ("I" if has_image else "") + ("T" if has_text else "") or "empty"
