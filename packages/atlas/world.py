"""The tables of Atlas: what its places, passages, facts, wordings and pictographs are called on disk.

Rows and schemas only; how they come about is told in `assemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from atlas.wordings import Wording
from gme_data.parquet import write_table


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A place; pictures are image ids. `map` is an outline, `locator` a dot in its part of the world."""

    place_id: str
    name: str
    aliases: tuple[str, ...]
    region: str
    entity_group: str
    split: str
    flag_twemoji: str
    flag_openmoji: str
    map: str | None
    locator: str | None
    flag_description: str | None
    licence: str


@dataclass(frozen=True, slots=True)
class PassageRow:
    """One section of a place. `page` shows the section; `illustration` goes with it in illustrated documents."""

    id: str
    place_id: str
    place_name: str
    section: str
    text: str
    page: str | None
    illustration: str | None
    entity_group: str
    split: str
    licence: str


@dataclass(frozen=True, slots=True)
class FactRow:
    """A field of a place that can be asked for; `value` stands in the text of `passage_id`."""

    id: str
    place_id: str
    place_name: str
    section: str
    field: str
    value: str
    passage_id: str
    entity_group: str
    split: str
    licence: str


@dataclass(frozen=True, slots=True)
class PictographRow:
    """A pictograph in both styles. `names` are ``{lang, name}`` sorted by language."""

    id: str
    base_id: str
    family: str
    name: str
    aliases: tuple[str, ...]
    names: tuple[dict[str, str], ...]
    variant: str
    gender: str
    twemoji: str
    openmoji: str
    entity_group: str
    split: str
    licence: str

    def picture(self, style: str) -> str:
        """Image id in a style."""
        return self.twemoji if style == "twemoji" else self.openmoji


@dataclass(frozen=True, slots=True)
class ImaginedRow:
    """A place that does not exist; see `imagined`. Pictures are image ids."""

    place_id: str
    name: str
    entity_group: str
    split: str
    flag_flat: str
    flag_outlined: str
    flag_description: str
    licence: str


@dataclass(frozen=True, slots=True)
class World:
    """All of Atlas but the pixels, and the licence of each picture by its id."""

    places: tuple[PlaceRow, ...]
    passages: tuple[PassageRow, ...]
    facts: tuple[FactRow, ...]
    wordings: tuple[Wording, ...]
    pictographs: tuple[PictographRow, ...]
    imagined: tuple[ImaginedRow, ...]
    picture_licences: dict[str, str]


_TEXTS = pa.list_(pa.string())
_NAMES = pa.list_(pa.struct([pa.field("lang", pa.string()), pa.field("name", pa.string())]))


def _schema(required: str, optional: str = "", **others: pa.DataType) -> pa.Schema:
    fields = [pa.field(name, pa.string(), nullable=False) for name in required.split()]
    fields += [pa.field(name, pa.string()) for name in optional.split()]
    return pa.schema(fields + [pa.field(name, kind, nullable=False) for name, kind in others.items()])


SCHEMAS = {
    "places": _schema(
        "place_id name region entity_group split flag_twemoji flag_openmoji licence",
        "map locator flag_description",
        aliases=_TEXTS,
    ),
    "passages": _schema("id place_id place_name section text entity_group split licence", "page illustration"),
    "facts": _schema("id place_id place_name section field value passage_id entity_group split licence"),
    "wordings": _schema("field split kind template"),
    "pictographs": _schema(
        "id base_id family name variant gender twemoji openmoji entity_group split licence",
        aliases=_TEXTS,
        names=_NAMES,
    ),
    "imagined": _schema("place_id name entity_group split flag_flat flag_outlined flag_description licence"),
}


def write_world(folder: Path, world: World) -> None:
    """Write one parquet file per table."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Sequence[Any]] = {
        "places": world.places,
        "passages": world.passages,
        "facts": world.facts,
        "wordings": world.wordings,
        "pictographs": world.pictographs,
        "imagined": world.imagined,
    }
    for name, rows in tables.items():
        write_table(folder / f"{name}.parquet", [asdict(row) for row in rows], SCHEMAS[name])
