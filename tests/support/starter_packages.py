"""Small package files in the real layouts: Iconify sets, Tux Paint stamps, flags, WordNet's database."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from gme_data.digests import sha256_file
from research.starter.downloads import Package

LICENCE_HEADER = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
INDEX_NOUN = (
    LICENCE_HEADER
    + """\
moon n 2 5 @ ~ #p %p + 2 2 09358358 09358550
andorra n 1 3 @ #p %m 1 0 09023118
principality_of_andorra n 1 3 @ #p %m 1 0 09023118
cow n 1 3 @ ~ %p 1 1 02403454
moo-cow n 1 3 @ ~ %p 1 1 02403454
pyrenees n 1 1 @i 1 0 09403427
"""
)
DATA_NOUN = (
    LICENCE_HEADER
    + """\
09358358 17 n 02 Moon 1 moon 3 001 @i 09424270 n 0000 | the natural satellite of the Earth; "the average distance to \
the Moon is 384,400 kilometers"; "men first stepped on the moon in 1969"
09358550 17 n 01 moon 4 001 @ 09424270 n 0000 | any natural satellite of a planet
02403454 05 n 02 cow 1 moo-cow 0 001 @ 02402425 n 0000 | female of domestic cattle: "`moo-cow' is a child's term"
09023118 15 n 02 Andorra 0 Principality_of_Andorra 0 001 @i 08696931 n 0000 | a small republic in the mountains
09403427 17 n 01 Pyrenees 0 001 @i 09359803 n 0000 | a chain of mountains beside Andorra
"""
)
INDEX_ADJ = LICENCE_HEADER + "galore a 2 1 & 2 0 01552162 00014358\n"
DATA_ADJ = (
    LICENCE_HEADER
    + '00014358 00 s 02 abounding 0 galore(ip) 0 001 & 00013887 a 0000 | existing in abundance; "whiskey galore"\n'
)
SQUARE = '<rect x="2" y="2" width="12" height="12" fill="{}"/>'
RING = '<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2"/>'


def shape(number: int) -> str:
    """A drawing like no other: bars of lengths given by the bits of `number`."""
    bars = (f'<rect x="1" y="{y * 2}" width="{2 + 12 * (number >> y & 1)}" height="2" fill="#c63"/>' for y in range(8))
    return "".join(bars)


def embedded(picture: Image.Image) -> str:
    """The body of an icon that shows `picture`."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<image width="16" height="16" xlink:href="data:image/png;base64,{data}"/>'


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def pack(folder: Path, name: str, role: str, files: Mapping[str, str | bytes]) -> Package:
    """Write an npm package file and return its row of the table."""
    row = {"name": name, "version": "1.0.0", "registry": "npm", "role": role, "licence": "MIT", "credit": "Someone"}
    package = Package(**row, sha256="")
    with tarfile.open(folder / package.file, "w:gz") as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return package.model_copy(update={"sha256": sha256_file(folder / package.file)})


def icon_set(
    folder: Path,
    name: str,
    role: str,
    icons: Mapping[str, str | Mapping[str, Any]],
    chars: Mapping[str, str] | None = None,
    aliases: Mapping[str, Any] | None = None,
) -> Package:
    """An Iconify package: bodies, or whole entries, by name."""
    entries = {icon: {"body": entry} if isinstance(entry, str) else entry for icon, entry in icons.items()}
    content = {"prefix": name, "icons": entries, "aliases": aliases or {}, "width": 16, "height": 16}
    files = {"icons.json": json.dumps(content), "info.json": json.dumps({"prefix": name, "total": len(entries)})}
    if chars is not None:
        files["chars.json"] = json.dumps(chars)
    return pack(folder, f"@iconify-json/{name}", role, files)


def wordnet(folder: Path) -> Package:
    """A few synsets, lines as in the real files."""
    files = {
        "index.noun": INDEX_NOUN, "data.noun": DATA_NOUN, "index.adj": INDEX_ADJ, "data.adj": DATA_ADJ,
        "index.verb": LICENCE_HEADER, "data.verb": LICENCE_HEADER,
        "index.adv": LICENCE_HEADER, "data.adv": LICENCE_HEADER,
    }  # fmt: skip
    return pack(folder, "wordnet-base", "glosses", {f"usr/share/wordnet/{name}": text for name, text in files.items()})
