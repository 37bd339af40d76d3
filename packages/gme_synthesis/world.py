"""Reads one split of a corpus on disk, by default train. Other rows are dropped here, so no later step can see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.parquet import read_rows, shard_paths
from gme_synthesis.records import Fact, Passage, Place

FLAG_STYLES = ("twemoji", "openmoji")
_COLUMNS = {
    "places": "place_id name aliases entity_group split flag_twemoji flag_openmoji licence",
    "passages": "id place_id section text page illustration split licence",
    "facts": "id place_id section field value passage_id entity_group split",
    "wordings": "field split kind template",
}


@dataclass(frozen=True, slots=True)
class World:
    """One split: entities and what is known of them, by id; question templates by field; licences by image id."""

    places: Mapping[str, Place]
    passages: Mapping[str, Passage]
    facts: Mapping[str, Fact]
    templates: Mapping[str, tuple[str, ...]]
    picture_licences: Mapping[str, str]


def read_world(atlas: Path, split: str = "train") -> World:
    """Read one split of ``corpus/*.parquet`` and the licences of ``images/images-*.parquet`` below `atlas`.

    Raises:
        FoundryError: A table or column is missing, nothing is in the train part, or a fact points nowhere.
    """
    corpus = atlas / "corpus"
    world = World(
        places={row["place_id"]: _place(row) for row in _rows(corpus, "places", split)},
        passages={row["id"]: _passage(row) for row in _rows(corpus, "passages", split)},
        facts={row["id"]: _fact(row) for row in _rows(corpus, "facts", split)},
        templates=_templates(corpus, split),
        picture_licences=_picture_licences(atlas / "images"),
    )
    for fact in world.facts.values():
        if fact.place_id not in world.places or fact.passage_id not in world.passages:
            raise FoundryError(
                f"{corpus / 'facts.parquet'}: fact {fact.id!r} points to a place or passage outside the {split} part.",
                hint="Rebuild the corpus: `gme atlas build`.",
            )
    return world


def _rows(corpus: Path, table: str, split: str) -> list[dict[str, Any]]:
    path = corpus / f"{table}.parquet"
    types = {"aliases": pa.list_(pa.string())}
    schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in _COLUMNS[table].split()])
    rows = [row for row in read_rows(path, schema) if row["split"] == split]
    if not rows:
        raise FoundryError(f"{path}: no row of the {split} split.", hint="Rebuild the corpus: `gme atlas build`.")
    return rows


def _picture_licences(images: Path) -> dict[str, str]:
    tables = [pq.read_table(path, columns=["id", "licence"]) for path in shard_paths(images, "images")]
    return {row["id"]: row["licence"] for table in tables for row in table.to_pylist()}


def _templates(corpus: Path, split: str) -> dict[str, tuple[str, ...]]:
    """Templates by field, both kinds: a deictic one takes the name where it would take a reference."""
    found: dict[str, set[str]] = {}
    for row in _rows(corpus, "wordings", split):
        found.setdefault(row["field"], set()).add(row["template"].replace("{reference}", "{place}"))
    return {name: tuple(sorted(templates)) for name, templates in sorted(found.items())}


def _place(row: dict[str, Any]) -> Place:
    flags = {style: row[f"flag_{style}"] for style in FLAG_STYLES if row[f"flag_{style}"]}
    names = tuple(row["aliases"] or ())
    return Place(row["place_id"], row["name"], names, row["entity_group"], flags, row["licence"])


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(
        row["id"], row["place_id"], row["section"], row["text"], row["page"], row["illustration"], row["licence"]
    )


def _fact(row: dict[str, Any]) -> Fact:
    return Fact(**{name: row[name] for name in Fact.__dataclass_fields__})
