"""Reads icon sets in the format of the Iconify packages: a JSON file of SVG bodies by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gme_data.structured import parse_json
from research.starter.downloads import Package, read_members

_DEFAULT_SIDE = 16
_MAX_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class IconBody:
    """An icon in ``icons.json``."""

    body: str
    hidden: bool = False
    left: int | float | None = None
    top: int | float | None = None
    width: int | float | None = None
    height: int | float | None = None


@dataclass(frozen=True, slots=True)
class IconSet:
    """The content of ``icons.json``: icons, aliases, and the default view box."""

    icons: dict[str, IconBody]
    aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: int | float | None = None
    top: int | float | None = None
    width: int | float | None = None
    height: int | float | None = None


@dataclass(frozen=True, slots=True)
class Icon:
    """An icon of a set.

    Attributes:
        style: Short name of the set.
        name: Name in the set, words joined by dashes.
        aliases: Other names in the set.
        svg: A complete SVG.
        symbol: The emoji that it draws (hex code points joined by dashes); empty if the set states none.
        licence: SPDX expression.
    """

    style: str
    name: str
    aliases: tuple[str, ...]
    svg: str
    symbol: str
    licence: str

    @property
    def tintable(self) -> bool:
        """Whether its colour can be chosen."""
        return "currentColor" in self.svg


def read_icons(package: Package, folder: Path) -> Iterator[Icon]:
    """Yields every visible icon of a package, sorted by name. Raises as `read_members`."""
    kinds: dict[str, Any] = {"icons.json": IconSet, "chars.json": dict[str, str]}
    files = {
        name: parse_json(data, kinds[name], where=f"{folder / package.file}: {name}", max_bytes=_MAX_BYTES)
        for name, data in read_members(package, folder)
        if name in kinds
    }
    icons: IconSet = files["icons.json"]
    symbols: dict[str, str] = {}  # without variation selectors, as the ids of Atlas's pictographs
    for code, name in sorted(files.get("chars.json", {}).items()):
        symbols.setdefault(name, "-".join(part for part in code.lower().split("-") if part != "fe0f"))
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.aliases.items():
        if set(entry) == {"parent"}:  # an alias that turns or flips its parent is another drawing
            aliases.setdefault(entry["parent"], []).append(alias)
    for name, body in sorted(icons.icons.items()):
        if not body.hidden:
            svg = _svg(body, icons)
            others = tuple(sorted(aliases.get(name, ())))
            yield Icon(package.short, name, others, svg, symbols.get(name, ""), package.licence)


def _svg(icon: IconBody, icons: IconSet) -> str:
    defaults = {"left": 0, "top": 0, "width": _DEFAULT_SIDE, "height": _DEFAULT_SIDE}
    box = []
    for side, default in defaults.items():
        numbers = (getattr(icon, side), getattr(icons, side), default)
        box.append(next(number for number in numbers if number is not None))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}">{icon.body}</svg>'
    )
