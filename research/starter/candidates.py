"""Reads the candidates for pictures of the data: drawings, flags and photographs of the packages.

Each reader drops what is held out by symbol or name and counts what it drops. Candidates that look like a held-out
picture are dropped by `build`, once they are rendered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from research.starter.config import StarterDataConfig
from research.starter.downloads import Package, read_members
from research.starter.held_out import HeldOutEntities, flag_code
from research.starter.iconify import Icon, read_icons
from research.starter.names import key, readable, words
from research.starter.rendering import draw_svg, shrink, tint
from research.starter.stamps import read_stamps

Drops = Counter[str]
"""Number of dropped candidates by kind and reason, as in ``drops.json``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that can be rendered.

    Attributes:
        kind: ``emoji``, ``flag``, ``icon`` or ``photo``.
        source: ``set/name`` or ``set/name@symbol``, unique; `leak_check` reads the name and symbol from it.
        style: Name of the set, and the rendering where there are two.
        entity: The emoji, place or concept that it shows; drawings of one entity are paired.
        entity_group: Group for masking false negatives; that of Atlas for its trained pictographs and places.
        batch_key: Category of the entity.
        names: ``(label, text)``, English first.
        licence: SPDX expression.
        render: Renders it as PNG.
    """

    kind: str
    source: str
    style: str
    entity: str
    entity_group: str
    batch_key: str
    names: tuple[tuple[str, str], ...]
    licence: str
    render: Callable[[], bytes]


def squash(name: str) -> str:
    """Returns letters and digits alone, since the sets write dashes in the name of an emoji differently."""
    return re.sub(r"[\W_]+", "", name.casefold())


def read_emoji(
    packages: Sequence[Package], folder: Path, held_out: HeldOutEntities, config: StarterDataConfig, drops: Drops
) -> Iterator[Candidate]:
    """Yields drawings by other sets of the pictographs that Atlas trains on."""
    sets = {package.short: list(read_icons(package, folder)) for package in packages}
    by_name = _symbols_by_name(held_out, [icon for icons in sets.values() for icon in icons])
    for style, icons in sets.items():
        symbols_of_set: set[str] = set()
        for icon in icons:
            symbol = icon.symbol or by_name.get(squash(re.sub(r"-1$", "", icon.name)), "")
            reason = _drop_reason(symbol, icon, held_out, symbols_of_set)
            if reason:
                drops[f"emoji: {reason}"] += 1
                continue
            symbols_of_set.add(symbol)
            row = held_out.train_pictographs[symbol]
            yield Candidate(
                "emoji", f"{style}/{icon.name}@{symbol}", style, symbol, row["entity_group"], row["family"],
                _names(row, held_out, config) if row["variant"] == "base" else (),
                icon.licence, _renderer(icon, config, "a"),
            )  # fmt: skip


def _symbols_by_name(held_out: HeldOutEntities, icons: Iterable[Icon]) -> dict[str, str]:
    """Returns the symbol by squashed name, for sets without symbols; names of several symbols are left out."""
    symbols_of: dict[str, set[str]] = {}
    for row in held_out.pictographs:
        for name in (row["name"], *row["aliases"]):
            symbols_of.setdefault(squash(name), set()).add(row["id"])
    for icon in icons:
        if icon.symbol:
            for name in (icon.name, *icon.aliases):
                symbols_of.setdefault(squash(name), set()).add(icon.symbol)
    return {name: min(symbols) for name, symbols in symbols_of.items() if len(symbols) == 1}


def _drop_reason(symbol: str, icon: Icon, held_out: HeldOutEntities, symbols_of_set: set[str]) -> str:
    if not symbol:
        return "symbol not told"
    if held_out.has_symbol(symbol):
        return "held-out symbol"
    row = held_out.train_pictographs.get(symbol)
    if row is None:
        return "not a pictograph of Atlas"
    if any(held_out.has_name(name) for name in (row["name"], *row["aliases"], icon.name)):
        return "held-out name"
    return "drawn twice in one set" if symbol in symbols_of_set else ""


def _names(row: Mapping[str, Any], held_out: HeldOutEntities, config: StarterDataConfig) -> tuple[tuple[str, str], ...]:
    """Returns ``(label, name)`` pairs, less those that are the name of something held out in another language."""
    translations = {entry["lang"]: entry["name"] for entry in row["names"]}
    aliases = [(f"alias{number}", alias) for number, alias in enumerate(row["aliases"])]
    foreign = [(language, translations[language]) for language in config.languages if language in translations]
    return tuple(name for name in (("en", row["name"]), *aliases, *foreign) if not held_out.has_name(name[1]))


def _renderer(icon: Icon, config: StarterDataConfig, rendering: str) -> Callable[[], bytes]:
    if not icon.tintable:
        return partial(draw_svg, icon.svg, config.picture_size)
    svg, background = tint(icon.svg, config.seed, icon.style, icon.name, rendering)
    return partial(draw_svg, svg, config.picture_size, background)


def read_flags(
    packages: Sequence[Package], emoji: Sequence[Package], folder: Path, held_out: HeldOutEntities,
    config: StarterDataConfig, drops: Drops,
) -> Iterator[Candidate]:  # fmt: skip
    """Yields flags of the places that Atlas trains on, in further styles."""
    places = {row["place_id"]: row for row in held_out.places}
    for package in packages:
        for code, source, render in _flags(package, folder, config):
            yield from _flag(places.get(code), package.short, source, package.licence, render, drops)
    by_name = {squash(row["name"]): row for row in held_out.places}
    for package in emoji:
        for icon in read_icons(package, folder):
            code = flag_code(icon.symbol)
            row = places.get(code) if code else by_name.get(squash(icon.name.partition("flag-for-")[2]))
            if code or icon.name.startswith("flag-for-"):
                source = f"{package.short}/{icon.name}" + (f"@{icon.symbol}" if icon.symbol else "")
                yield from _flag(row, package.short, source, icon.licence, _renderer(icon, config, "a"), drops)


def _flag(
    row: Mapping[str, Any] | None, style: str, source: str, licence: str, render: Callable[[], bytes], drops: Drops
) -> Iterator[Candidate]:
    if row is None:
        drops["flag: no place of Atlas"] += 1
    elif row["split"] != "train":
        drops["flag: held-out place"] += 1
    else:
        text = row["flag_description"]
        names = (("en", text),) if text else ()
        group = row["entity_group"]
        yield Candidate("flag", source, style, row["place_id"], group, row["region"], names, licence, render)


def _flags(package: Package, folder: Path, config: StarterDataConfig) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    if package.role == "flag-photos":
        for path, data in sorted(read_members(package, folder)):
            name = Path(path).stem
            if path.endswith(".png") and re.fullmatch(r"[a-z]{2}", name):
                yield name, f"{package.short}/{name}", partial(shrink, data, config.picture_size, path)
        return
    for icon in read_icons(package, folder):
        match = re.fullmatch(r"([a-z]{2})(-4x3)?", icon.name)
        if match:
            yield match[1], f"{package.short}/{icon.name}", _renderer(icon, config, "a")


def read_concepts(
    packages: Sequence[Package], folder: Path, held_out: HeldOutEntities, categories: Mapping[str, str],
    config: StarterDataConfig, drops: Drops,
) -> Iterator[Candidate]:  # fmt: skip
    """Yields icons, those of the concepts that most sets draw first.

    Each set has one drawing of a concept. Where only one set has it, and its colour can be chosen, the drawing is
    rendered in two colours, so that there is a pair.
    """
    groups = {
        key(row["name"]): row["entity_group"] for row in held_out.train_pictographs.values() if row["variant"] == "base"
    }
    for concept, icons in _rank_concepts(_concepts(packages, folder, held_out, drops), categories):
        name = " ".join(sorted(concept))
        group = groups.get(concept, f"concept:{name}")
        category = categories.get(readable(icons[0].name), "other")
        in_two_colours = len(icons) == 1 and icons[0].tintable
        for icon in icons[: config.styles_per_concept]:
            for rendering in ("a", "b") if in_two_colours else ("a",):
                yield Candidate(
                    "icon", f"{icon.style}/{icon.name}" + ("#b" if rendering == "b" else ""),
                    f"{icon.style}#{rendering}", name, group, category, (("en", readable(icon.name)),), icon.licence,
                    _renderer(icon, config, rendering),
                )  # fmt: skip


def _concepts(
    packages: Sequence[Package], folder: Path, held_out: HeldOutEntities, drops: Drops
) -> dict[frozenset[str], list[Icon]]:
    """Returns the icons of each concept, at most one of a set: the one with the shortest name."""
    concepts: dict[frozenset[str], dict[str, Icon]] = {}
    for package in packages:
        for icon in read_icons(package, folder):
            name = readable(icon.name)
            if not 1 <= len(words(name)) <= 4 or not re.search(r"[a-z]{3}", name) or "abstract" in name:
                drops["icon: no name to speak of"] += 1
            elif any(map(held_out.shown_by, map(readable, (icon.name, *icon.aliases)))):
                drops["icon: held-out name"] += 1
            else:
                of_set = concepts.setdefault(key(name), {})
                if icon.style in of_set:
                    drops["icon: another variant of the set"] += 1
                    of_set[icon.style] = min(
                        of_set[icon.style], icon, key=lambda variant: (len(variant.name), variant.name)
                    )
                else:
                    of_set[icon.style] = icon
    return {concept: list(of_set.values()) for concept, of_set in concepts.items()}


def _rank_concepts(
    concepts: Mapping[frozenset[str], list[Icon]], categories: Mapping[str, str]
) -> list[tuple[frozenset[str], list[Icon]]]:
    # Pictures are bounded, so concepts that WordNet has and that many sets draw come first.
    def order(entry: tuple[frozenset[str], list[Icon]]) -> tuple[bool, bool, int, list[str]]:
        concept, icons = entry
        in_wordnet = readable(icons[0].name) in categories
        return (len(icons) == 1 and icons[0].tintable and not in_wordnet, not in_wordnet, -len(icons), sorted(concept))

    return sorted(concepts.items(), key=order)


def read_photos(
    package: Package, folder: Path, held_out: HeldOutEntities, config: StarterDataConfig, drops: Drops
) -> Iterator[Candidate]:
    """Yields stamps with their captions."""
    for stamp in read_stamps(package, folder, config.languages):
        caption = stamp.captions["en"]
        path = re.sub(r"[/_]+", " ", stamp.name)
        if held_out.shown_by(caption) or held_out.shown_by(path):
            drops["photo: held-out name"] += 1
            continue
        concept = " ".join(sorted(key(caption)))
        names = tuple((language, text) for language, text in stamp.captions.items() if not held_out.shown_by(text))
        if stamp.vector:
            render = partial(draw_svg, stamp.data.decode("utf-8", "replace"), config.photo_size)
        else:
            render = partial(shrink, stamp.data, config.photo_size, stamp.name)
        yield Candidate(
            "photo", f"{package.short}/{stamp.name}", "stamp", concept, f"concept:{concept}",
            "/".join(stamp.name.split("/")[:2]), names, package.licence, render,
        )  # fmt: skip
