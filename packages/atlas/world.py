"""The tables of Atlas: places, passages, facts, wordings and pictographs.

Rows only; their columns on disk are those of `gme_data.atlas_tables`, how they come about is told in `assemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlas.wordings import Wording
from gme_data.atlas_tables import SCHEMAS
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
