"""Reads the stamps of Tux Paint: cut-out photographs and drawings, each with a caption."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from research.starter.downloads import Package, read_members


@dataclass(frozen=True, slots=True)
class Stamp:
    """A stamp.

    Attributes:
        name: Path among the stamps, without suffix.
        captions: Captions by language, ``en`` first.
        data: The encoded picture, PNG or SVG.
        vector: Whether `data` is SVG.
    """

    name: str
    captions: dict[str, str]
    data: bytes
    vector: bool


def read_stamps(package: Package, folder: Path, languages: Collection[str]) -> tuple[Stamp, ...]:
    """Returns every stamp with an English caption, sorted by name. Raises as `read_members`."""
    files = {
        path.partition("/stamps/")[2]: data
        for path, data in read_members(package, folder)
        if "/stamps/" in path and path.endswith((".png", ".svg", ".txt")) and "_mirror" not in path
    }
    stamps = []
    for name in sorted({path.rpartition(".")[0] for path in files}):
        picture = files.get(f"{name}.png") or files.get(f"{name}.svg")
        captions = _captions(files.get(f"{name}.txt", b"").decode("utf-8", "replace"), languages)
        if picture and captions:
            stamps.append(Stamp(name, captions, picture, vector=f"{name}.png" not in files))
    return tuple(stamps)


def _captions(text: str, languages: Collection[str]) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Without an English caption a file begins with a translation, such as "de.utf8=Eine Tür."
    if not lines or "=" in lines[0][:20]:
        return {}
    captions = {"en": lines[0]}
    for line in lines[1:]:
        language, _, caption = line.partition(".utf8=")
        if language in languages and caption:
            captions[language] = caption.strip()
    return captions
