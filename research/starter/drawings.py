"""Candidates: every drawing, flag and photograph that may enter, with what it shows and how it is drawn.

Each reader yields candidates that no rule about symbols and names refuses, and counts what it refuses. How a picture
looks is judged later, when it is drawn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from research.starter.config import StarterConfig
from research.starter.downloads import Package, read_members
from research.starter.drawing import draw_svg, shrink, tint
from research.starter.heldout import HeldOut, region
from research.starter.iconify import Icon, read_icons
from research.starter.names import key, readable, words
from research.starter.stamps import read_stamps

Drops = Counter[str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture to be.

    Attributes:
        kind: ``emoji``, ``flag``, ``icon`` or ``photo``.
        source: ``set/name`` or ``set/name@symbol``: where it is from, unique; `prove` reads it again.
        style: Name of the set, with the rendering where there are two.
        entity: What exactly it shows: the very emoji, place or concept; drawings of one entity are paired.
        entity_group: What masks false negatives; a group of Atlas for its trained pictographs and places.
        batch_key: Sort of thing.
        names: ``(label, text)``, English first.
        licence: SPDX expression.
        make: Draws it, as PNG.
    """

    kind: str
    source: str
    style: str
    entity: str
    entity_group: str
    batch_key: str
    names: tuple[tuple[str, str], ...]
    licence: str
    make: Callable[[], bytes]


def squash(name: str) -> str:
    """Letters and digits alone: how sets that disagree on dashes call one emoji."""
    return re.sub(r"[\W_]+", "", name.casefold())


def read_emoji(
    packages: Sequence[Package], folder: Path, held_out: HeldOut, config: StarterConfig, drops: Drops
) -> Iterator[Drawing]:
    """Atlas's trained pictographs as other sets draw them."""
    sets = {package.short: list(read_icons(package, folder)) for package in packages}
    by_name = _symbols_by_name(held_out, [icon for icons in sets.values() for icon in icons])
    for style, icons in sets.items():
        taken: set[str] = set()
        for icon in icons:
            symbol = icon.symbol or by_name.get(squash(re.sub(r"-1$", "", icon.name)), "")
            reason = _refuse_emoji(symbol, icon, held_out, taken)
            if reason:
                drops[f"emoji: {reason}"] += 1
                continue
            taken.add(symbol)
            row = held_out.trained[symbol]
            yield Drawing(
                "emoji", f"{style}/{icon.name}@{symbol}", style, symbol, row["entity_group"], row["family"],
                _names(row, held_out, config) if row["variant"] == "base" else (),
                icon.licence, _maker(icon, config, "a"),
            )  # fmt: skip


def _symbols_by_name(held_out: HeldOut, icons: Iterable[Icon]) -> dict[str, str]:
    """Symbol by squashed name, for sets that do not tell; names of several symbols are left out."""
    found: dict[str, set[str]] = {}
    for row in held_out.pictographs:
        for name in (row["name"], *row["aliases"]):
            found.setdefault(squash(name), set()).add(row["id"])
    for icon in icons:
        if icon.symbol:
            for name in (icon.name, *icon.aliases):
                found.setdefault(squash(name), set()).add(icon.symbol)
    return {name: min(symbols) for name, symbols in found.items() if len(symbols) == 1}


def _refuse_emoji(symbol: str, icon: Icon, held_out: HeldOut, taken: set[str]) -> str:
    if not symbol:
        return "symbol not told"
    if held_out.symbol(symbol):
        return "held-out symbol"
    row = held_out.trained.get(symbol)
    if row is None:
        return "not a pictograph of Atlas"
    if any(held_out.named(name) for name in (row["name"], *row["aliases"], icon.name)):
        return "held-out name"
    return "drawn twice in one set" if symbol in taken else ""


def _names(row: Mapping[str, Any], held_out: HeldOut, config: StarterConfig) -> tuple[tuple[str, str], ...]:
    """Without names that mean something held out in another language."""
    other = {entry["lang"]: entry["name"] for entry in row["names"]}
    aliases = [(f"alias{number}", alias) for number, alias in enumerate(row["aliases"])]
    foreign = [(language, other[language]) for language in config.languages if language in other]
    return tuple(name for name in (("en", row["name"]), *aliases, *foreign) if not held_out.named(name[1]))


def _maker(icon: Icon, config: StarterConfig, rendering: str) -> Callable[[], bytes]:
    if not icon.tintable:
        return partial(draw_svg, icon.svg, config.picture_size)
    svg, ground = tint(icon.svg, config.seed, icon.style, icon.name, rendering)
    return partial(draw_svg, svg, config.picture_size, ground)


def read_flags(
    packages: Sequence[Package], emoji: Sequence[Package], folder: Path, held_out: HeldOut, config: StarterConfig,
    drops: Drops,
) -> Iterator[Drawing]:  # fmt: skip
    """Flags of Atlas's trained places in further styles."""
    places = {row["place_id"]: row for row in held_out.places}
    for package in packages:
        for code, source, make in _flags(package, folder, config):
            yield from _flag(places.get(code), package.short, source, package.licence, make, drops)
    by_name = {squash(row["name"]): row for row in held_out.places}
    for package in emoji:
        for icon in read_icons(package, folder):
            code = region(icon.symbol)
            row = places.get(code) if code else by_name.get(squash(icon.name.partition("flag-for-")[2]))
            if code or icon.name.startswith("flag-for-"):
                source = f"{package.short}/{icon.name}" + (f"@{icon.symbol}" if icon.symbol else "")
                yield from _flag(row, package.short, source, icon.licence, _maker(icon, config, "a"), drops)


def _flag(
    row: Mapping[str, Any] | None, style: str, source: str, licence: str, make: Callable[[], bytes], drops: Drops
) -> Iterator[Drawing]:
    if row is None:
        drops["flag: no place of Atlas"] += 1
    elif row["split"] != "train":
        drops["flag: held-out place"] += 1
    else:
        text = row["flag_description"]
        names = (("en", text),) if text else ()
        group = row["entity_group"]
        yield Drawing("flag", source, style, row["place_id"], group, row["region"], names, licence, make)


def _flags(package: Package, folder: Path, config: StarterConfig) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    if package.role == "flag-photos":
        for path, data in sorted(read_members(package, folder)):
            name = Path(path).stem
            if path.endswith(".png") and re.fullmatch(r"[a-z]{2}", name):
                yield name, f"{package.short}/{name}", partial(shrink, data, config.picture_size, path)
        return
    for icon in read_icons(package, folder):
        match = re.fullmatch(r"([a-z]{2})(-4x3)?", icon.name)
        if match:
            yield match[1], f"{package.short}/{icon.name}", _maker(icon, config, "a")


def read_concepts(
    packages: Sequence[Package], folder: Path, held_out: HeldOut, categories: Mapping[str, str], config: StarterConfig,
    drops: Drops,
) -> Iterator[Drawing]:  # fmt: skip
    """Icons, the concepts that most sets draw first; one drawing a set, two renderings where only one set has it."""
    groups = {key(row["name"]): row["entity_group"] for row in held_out.trained.values() if row["variant"] == "base"}
    for concept, icons in _rank_concepts(_concepts(packages, folder, held_out, drops), categories):
        name = " ".join(sorted(concept))
        group = groups.get(concept, f"concept:{name}")
        sort = categories.get(readable(icons[0].name), "other")
        alone = len(icons) == 1 and icons[0].tintable
        for icon in icons[: config.styles_per_concept]:
            for rendering in ("a", "b") if alone else ("a",):
                yield Drawing(
                    "icon", f"{icon.style}/{icon.name}" + ("#b" if rendering == "b" else ""),
                    f"{icon.style}#{rendering}", name, group, sort, (("en", readable(icon.name)),), icon.licence,
                    _maker(icon, config, rendering),
                )  # fmt: skip


def _concepts(
    packages: Sequence[Package], folder: Path, held_out: HeldOut, drops: Drops
) -> dict[frozenset[str], list[Icon]]:
    """Icons by the words of their name, at most one of a set: the one with the shortest name."""
    found: dict[frozenset[str], dict[str, Icon]] = {}
    for package in packages:
        for icon in read_icons(package, folder):
            name = readable(icon.name)
            if not 1 <= len(words(name)) <= 4 or not re.search(r"[a-z]{3}", name) or "abstract" in name:
                drops["icon: no name to speak of"] += 1
            elif any(map(held_out.shows, map(readable, (icon.name, *icon.aliases)))):
                drops["icon: held-out name"] += 1
            else:
                of_set = found.setdefault(key(name), {})
                if icon.style in of_set:
                    drops["icon: another variant of the set"] += 1
                    of_set[icon.style] = min(of_set[icon.style], icon, key=lambda one: (len(one.name), one.name))
                else:
                    of_set[icon.style] = icon
    return {concept: list(of_set.values()) for concept, of_set in found.items()}


def _rank_concepts(
    concepts: Mapping[frozenset[str], list[Icon]], categories: Mapping[str, str]
) -> list[tuple[frozenset[str], list[Icon]]]:
    def order(entry: tuple[frozenset[str], list[Icon]]) -> tuple[bool, bool, int, list[str]]:
        concept, icons = entry
        known = readable(icons[0].name) in categories
        return (len(icons) == 1 and icons[0].tintable and not known, not known, -len(icons), sorted(concept))

    return sorted(concepts.items(), key=order)


def read_photos(
    package: Package, folder: Path, held_out: HeldOut, config: StarterConfig, drops: Drops
) -> Iterator[Drawing]:
    """Stamps with their captions."""
    for stamp in read_stamps(package, folder, config.languages):
        caption = stamp.captions["en"]
        path = re.sub(r"[/_]+", " ", stamp.name)
        if held_out.shows(caption) or held_out.shows(path):
            drops["photo: held-out name"] += 1
            continue
        concept = " ".join(sorted(key(caption)))
        names = tuple((language, text) for language, text in stamp.captions.items() if not held_out.shows(text))
        if stamp.vector:
            make = partial(draw_svg, stamp.data.decode("utf-8", "replace"), config.photo_size)
        else:
            make = partial(shrink, stamp.data, config.photo_size, stamp.name)
        yield Drawing(
            "photo", f"{package.short}/{stamp.name}", "stamp", concept, f"concept:{concept}",
            "/".join(stamp.name.split("/")[:2]), names, package.licence, make,
        )  # fmt: skip
