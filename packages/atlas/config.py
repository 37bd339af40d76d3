"""What can be chosen about Atlas."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gme_data.settings import Frozen


class SplitShares(Frozen):
    """Which part of the entity groups goes where. The three add up to 1."""

    train: float = Field(0.60, gt=0, lt=1)
    """Trained on."""
    dev: float = Field(0.15, gt=0, lt=1)
    """For choices: recipes, thresholds, early stops."""
    test: float = Field(0.25, gt=0, lt=1)
    """For the numbers that are reported."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if abs(self.train + self.dev + self.test - 1) > 1e-6:
            raise ValueError(f"train + dev + test must be 1, found {self.train + self.dev + self.test:.3f}")
        return self


class AtlasConfig(Frozen):
    """One Atlas. The defaults are the world of the default run."""

    kind: Literal["atlas"] = "atlas"
    """The embedded world."""
    seed: int = 17
    """Decides splits, which queries are drawn, and which wording each gets."""
    shares: SplitShares = SplitShares()
    """Shares of the entity groups."""
    places: int | None = Field(None, ge=8)
    """Only so many places; None for all. Small worlds are for tests."""
    imagined: int = Field(8, ge=0, le=100)
    """Places that do not exist, per trained one, with flags and passages to train on."""
    families: int | None = Field(None, ge=8)
    """Only so many pictograph families (with all their variants); None for all."""
    picture_size: int = Field(72, ge=16, le=512)
    """Side of flags, pictographs and maps in pixels."""
    page_width: int = Field(320, ge=200, le=1024)
    """Width of a rendered page in pixels."""
    page_height: int = Field(400, ge=250, le=1280)
    """Height of a rendered page in pixels."""
    lookalike_distance: float = Field(0.5, ge=0)
    """Two flags are one entity group if their mean absolute difference per channel (0-255, at 24x24) is below this."""
    queries: int = Field(300, ge=1)
    """At most so many queries a test task; a dev task gets half."""
    pictograph_pool: int = Field(800, ge=1)
    """Pictographs searched by pictograph tasks: all of the split's own, filled up with trained ones."""
    edit_pool: int = Field(1200, ge=1)
    """Pictures searched by pictograph edits, filled up in the same way."""
    illustrated_sections: tuple[str, ...] = ("Geography", "Government")
    """Sections whose illustrated passages T->IT searches."""
    flag_sections: tuple[str, ...] = ("Government", "People", "Economy")
    """Sections whose passages, each with its place's flag, IT->IT searches."""
    train_languages: tuple[str, ...] = ("de", "es", "fr")
    """Languages besides English whose pictograph names are trained on; the multilingual test asks all."""
