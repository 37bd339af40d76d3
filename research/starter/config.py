"""What can be chosen about the starter's data."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gme_data.settings import Frozen


class StarterConfig(Frozen):
    """One set of extra data. The defaults are those of the shipped starter."""

    seed: int = 17
    """Decides colours, which pairs are formed, and which texts are asked."""
    picture_size: int = Field(72, ge=16, le=512)
    """Side of emoji, icons and flags in pixels; Atlas's own."""
    photo_size: int = Field(96, ge=16, le=512)
    """Longer side of photographs in pixels."""
    pictures: int = Field(60_000, ge=1)
    """At most so many pictures; icons of the least known concepts are left out first."""
    styles_per_concept: int = Field(6, ge=1)
    """At most so many sets draw one concept."""
    pairs_per_entity: int = Field(10, ge=1)
    """At most so many pairs of drawings of one emoji, icon or flag."""
    texts: int = Field(60_000, ge=0)
    """At most so many pairs of texts."""
    invented_flags: int = Field(3_000, ge=0)
    """Flags of no place, each drawn in two styles and described."""
    names_per_passage: int = Field(12, ge=0)
    """Under so many other names each trained passage about a place is asked for."""
    languages: tuple[str, ...] = ("de", "es", "fr")
    """Languages besides English of names and captions; those that Atlas trains on."""
    downloads: Path = Field(Path("data/packages"), exclude=True)
    """Where package files are kept; changes no byte of the output, so it is no part of the step's key."""
