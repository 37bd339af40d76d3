"""The tables of Atlas: places, passages, facts, wordings and pictographs.

The columns on disk are those of `gme_data.atlas_tables`; `assemble` fills the rows.
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
    """A place. Its pictures are image ids: `map` is its outline, `locator` marks it in its part of the world."""

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
    """One section of a place. `page` is a rendered page with it; `illustration` is the picture beside its text."""

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
    """A field of a place that questions ask for; the passage `passage_id` contains `value`."""

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
    """A pictograph in both styles. `names` has entries ``{lang, name}``, sorted by language."""

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
        """Returns the image id in a style."""
        return self.twemoji if style == "twemoji" else self.openmoji


@dataclass(frozen=True, slots=True)
class ImaginedRow:
    """An imagined place, see `atlas.imagined`. Its pictures are image ids."""

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
    """All tables of Atlas, and the licence of each picture by its id; the pixels are in the album."""

    places: tuple[PlaceRow, ...]
    passages: tuple[PassageRow, ...]
    facts: tuple[FactRow, ...]
    wordings: tuple[Wording, ...]
    pictographs: tuple[PictographRow, ...]
    imagined: tuple[ImaginedRow, ...]
    picture_licences: dict[str, str]


def write_world(folder: Path, world: World) -> None:
    """Writes one parquet file per table."""
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
