"""Icon sets in the format of the Iconify packages: one JSON file of SVG bodies by name.

Knows the format; not what the names mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.starter.downloads import Package, read_members

_DEFAULT_SIDE = 16


@dataclass(frozen=True, slots=True)
class Icon:
    """One drawing.

    Attributes:
        style: Short name of the set.
        name: As the set calls it, words joined by dashes.
        aliases: Its other names in the set.
        svg: A complete SVG.
        symbol: The emoji it draws (hex code points joined by dashes), where the set tells.
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
        """Whether it leaves its colour open."""
        return "currentColor" in self.svg


def read_icons(package: Package, folder: Path) -> Iterator[Icon]:
    """Every visible icon of a package, by name. Raises as `read_members`."""
    wanted = ("icons.json", "chars.json")
    files = {name: json.loads(data) for name, data in read_members(package, folder) if name in wanted}
    icons: Mapping[str, Any] = files["icons.json"]
    symbols: dict[str, str] = {}
    for code, name in sorted(files.get("chars.json", {}).items()):
        symbols.setdefault(name, "-".join(part for part in code.lower().split("-") if part != "fe0f"))
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.get("aliases", {}).items():
        if set(entry) == {"parent"}:  # what turns or flips its parent is another drawing
            aliases.setdefault(entry["parent"], []).append(alias)
    for name, entry in sorted(icons["icons"].items()):
        if not entry.get("hidden"):
            svg = _svg(entry, icons)
            others = tuple(sorted(aliases.get(name, ())))
            yield Icon(package.short, name, others, svg, symbols.get(name, ""), package.licence)


def _svg(entry: Mapping[str, Any], icons: Mapping[str, Any]) -> str:
    box = [entry.get(field, icons.get(field, default)) for field, default in
           (("left", 0), ("top", 0), ("width", _DEFAULT_SIDE), ("height", _DEFAULT_SIDE))]  # fmt: skip
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}">{entry["body"]}</svg>'
    )
