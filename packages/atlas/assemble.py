"""Assembles the tables of Atlas from its sources and draws the pictures that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from atlas import licences
from atlas.album import Album
from atlas.choice import seeded_hash, seeded_sample
from atlas.config import AtlasConfig
from atlas.drawings import STYLES
from atlas.factbook import Place, read_places, shorten
from atlas.fields import FIELDS, FLAG_START, PAGES, SECTIONS
from atlas.imagined import imagine
from atlas.maps import draw_locator, draw_outline, read_outlines
from atlas.pages import Block, render_page
from atlas.pictographs import BASE, Pictograph, read_pictographs
from atlas.splits import assign_splits, merge_lookalikes, thumbnail
from atlas.wordings import all_wordings
from atlas.world import FactRow, PassageRow, PictographRow, PlaceRow, World
from gme_data.licences import combine_licences
from gme_data.progress import track

_MAP_SECTIONS = frozenset({"Geography", "Nature"})


def assemble(config: AtlasConfig, album: Album) -> World:
    """Draws every picture into `album` and returns the tables."""
    places = _draw_places(config, album)
    sources = {place.id: place for place in _sample_places(config)}
    passages: list[PassageRow] = []
    facts: list[FactRow] = []
    for row in track(places, "render pages", len(places), "places"):
        of_place = _passages(row, sources[row.place_id], config, album)
        passages += of_place
        facts += _facts(row, sources[row.place_id], of_place)
    return World(
        places=places,
        passages=tuple(passages),
        facts=tuple(facts),
        wordings=tuple(all_wordings()),
        pictographs=_draw_pictographs(config, album),
        imagined=imagine(places, config, album),
        picture_licences={record.id: record.licence for record in album.records()},
    )


def _sample_places(config: AtlasConfig) -> list[Place]:
    # Sampled by a hash of the id, so a place stays in or out whatever else is read.
    places = seeded_sample(read_places(), config.places or len(read_places()), config.seed, lambda place: place.id)
    return sorted(places, key=lambda place: place.id)


def _draw_places(config: AtlasConfig, album: Album) -> tuple[PlaceRow, ...]:
    places = _sample_places(config)
    flags = {
        place.id: {style: album.draw(style, place.symbol) for style in STYLES}
        for place in track(places, "draw flags", len(places), "places")
    }
    # After all flags are drawn: places whose flags look alike must be in one split.
    groups, splits = _split_places(places, flags, config, album)
    return tuple(
        PlaceRow(
            place_id=place.id,
            name=place.name,
            aliases=place.aliases,
            region=place.region,
            entity_group=f"place:{groups[place.id]}",
            split=splits[groups[place.id]],
            flag_twemoji=flags[place.id]["twemoji"],
            flag_openmoji=flags[place.id]["openmoji"],
            map=_outline(place, config.picture_size, album),
            locator=_locator(place, config.picture_size, album),
            flag_description=place.flag_description,
            licence=licences.FACTBOOK,
        )
        for place in track(places, "draw maps", len(places), "places")
    )


def _outline(place: Place, size: int, album: Album) -> str | None:
    rings = read_outlines().get(place.id)
    if rings is None:
        return None
    return album.add(f"outline:{place.id}", licences.OUTLINES, lambda: draw_outline(rings, size))


def _locator(place: Place, size: int, album: Album) -> str | None:
    coordinates = place.coordinates
    if coordinates is None:
        return None
    licence = combine_licences(licences.OUTLINES, licences.FACTBOOK)
    return album.add(f"locator:{place.id}", licence, lambda: draw_locator(coordinates, place.id, size))


def _split_places(
    places: list[Place], flags: Mapping[str, Mapping[str, str]], config: AtlasConfig, album: Album
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns ``(group by place, split by group)``; look-alike flags are one group, the strata are the regions."""
    ids = [place.id for place in places]
    styles = [np.stack([thumbnail(album.open(flags[id_][style])) for id_ in ids]) for style in STYLES]
    groups = merge_lookalikes(ids, styles, config.lookalike_distance)
    region = {place.id: place.region for place in places}
    return groups, assign_splits({group: region[group] for group in groups.values()}, config.shares, config.seed)


def _passages(row: PlaceRow, place: Place, config: AtlasConfig, album: Album) -> list[PassageRow]:
    lines = {section: section_lines for section in SECTIONS if (section_lines := _lines(place, section))}
    pages = _pages(row, lines, config, album)
    return [
        PassageRow(
            id=f"{row.place_id}-{section.lower()}",
            place_id=row.place_id,
            place_name=row.name,
            section=section,
            text=f"{row.name}. {section}. {' '.join(f'{line}.' for line in section_lines)}",
            page=pages[section],
            illustration=_illustration(row, section, config.seed),
            entity_group=row.entity_group,
            split=row.split,
            licence=row.licence,
        )
        for section, section_lines in lines.items()
    ]


def _lines(place: Place, section: str) -> tuple[str, ...]:
    lines = [
        f"{field.name.capitalize()}: {place.values[field.name]}"
        for field in FIELDS
        if field.section == section and field.name in place.values
    ]
    if section == "Government" and place.flag_description:
        lines.append(f"Flag: {shorten(place.flag_description, FLAG_START)}")
    return tuple(lines)


def _pages(row: PlaceRow, lines: Mapping[str, tuple[str, ...]], config: AtlasConfig, album: Album) -> dict[str, str]:
    """Returns the image id of the page with each section."""
    pictures = [id_ for id_ in (row.flag_twemoji, row.map or row.locator) if id_]
    # A page shows text and pictures of several origins, so it is under all of their licences.
    licence = combine_licences(licences.FACTBOOK, *(album.licence(id_) for id_ in pictures))
    page_of: dict[str, str] = {}
    for number, sections in enumerate(PAGES, start=1):
        blocks = [Block(section, lines[section]) for section in sections if section in lines]
        if blocks:
            draw = partial(_page, row.name, pictures, blocks, config, album)
            page_of.update(dict.fromkeys(sections, album.add(f"page:{row.place_id}-{number}", licence, draw)))
    return page_of


def _page(
    title: str, pictures: Sequence[str], blocks: Sequence[Block], config: AtlasConfig, album: Album
) -> Image.Image:
    size = (config.page_width, config.page_height)
    return render_page(title, [album.open(id_) for id_ in pictures], blocks, size)


def _illustration(row: PlaceRow, section: str, seed: int) -> str:
    """Returns a map for sections about the land, where the place has one, and the flag for the others."""
    if section not in _MAP_SECTIONS:
        return row.flag_twemoji
    maps = [id_ for id_ in (row.map, row.locator) if id_]
    return maps[seeded_hash(seed, "illustration", row.place_id, section) % len(maps)] if maps else row.flag_twemoji


def _facts(row: PlaceRow, place: Place, passages: Iterable[PassageRow]) -> list[FactRow]:
    by_section = {passage.section: passage for passage in passages}
    return [
        FactRow(
            id=f"{row.place_id}-{field.name.replace(' ', '-')}",
            place_id=row.place_id,
            place_name=row.name,
            section=field.section,
            field=field.name,
            value=place.values[field.name],
            passage_id=by_section[field.section].id,
            entity_group=row.entity_group,
            split=row.split,
            licence=row.licence,
        )
        for field in FIELDS
        if field.name in place.values
    ]


def _draw_pictographs(config: AtlasConfig, album: Album) -> tuple[PictographRow, ...]:
    pictographs, splits = _split_pictographs(config)
    return tuple(
        PictographRow(
            id=item.id,
            base_id=item.base_id,
            family=item.family,
            name=item.name,
            aliases=item.aliases,
            names=tuple({"lang": language, "name": name} for language, name in sorted(item.names.items())),
            variant=item.variant,
            gender=item.gender,
            twemoji=album.draw("twemoji", item.symbol),
            openmoji=album.draw("openmoji", item.symbol),
            entity_group=f"pictograph:{item.family}",
            split=splits[item.family],
            licence=licences.NAMES,
        )
        for item in track(pictographs, "draw pictographs", len(pictographs), "pictographs")
    )


def _split_pictographs(config: AtlasConfig) -> tuple[list[Pictograph], dict[str, str]]:
    """Returns the sampled pictographs and the split of each family; strata are families with and without skin tones."""
    pictographs = read_pictographs()
    families = sorted({item.family for item in pictographs})
    sampled = set(seeded_sample(families, config.families or len(families), config.seed, str))
    toned = {item.family for item in pictographs if item.variant != BASE}
    # Few families have skin tones; without strata a small split could have none of them.
    strata = {family: "toned" if family in toned else "plain" for family in sorted(sampled)}
    return [item for item in pictographs if item.family in sampled], assign_splits(strata, config.shares, config.seed)
