"""The configuration of the starter's data."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gme_data.settings import Frozen


class StarterDataConfig(Frozen):
    """Configuration of the extra data; the defaults are those of the shipped starter."""

    seed: int = 17
    """Seed of colours, of sampled pairs and of sampled texts."""
    picture_size: int = Field(72, ge=16, le=512)
    """Side of emoji, icons and flags in pixels; the same as in Atlas."""
    photo_size: int = Field(96, ge=16, le=512)
    """Longer side of photographs in pixels."""
    pictures: int = Field(60_000, ge=1)
    """Most pictures; icons of concepts that WordNet lacks and few sets draw are dropped first."""
    styles_per_concept: int = Field(6, ge=1)
    """Most drawings of one concept, each of another icon set."""
    pairs_per_entity: int = Field(10, ge=1)
    """Most pairs of drawings of one emoji, icon or flag."""
    texts: int = Field(60_000, ge=0)
    """Most pairs of a text and a definition."""
    invented_flags: int = Field(3_000, ge=0)
    """Procedural flags, each drawn in two styles and described."""
    names_per_passage: int = Field(12, ge=0)
    """Other names under which each train passage about a place is asked for."""
    languages: tuple[str, ...] = ("de", "es", "fr")
    """Languages besides English of names and captions; the same that Atlas trains on."""
    downloads: Path = Field(Path("data/packages"), exclude=True)
    """Folder of package files. It changes no byte of the output, so the key of the step leaves it out."""
