"""The configuration of Atlas."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gme_data.settings import Frozen


class SplitShares(Frozen):
    """Shares of the entity groups in the three splits; they add up to 1."""

    train: float = Field(0.60, gt=0, lt=1)
    """Entities that examples are made of."""
    dev: float = Field(0.15, gt=0, lt=1)
    """Entities on which recipes, thresholds and early stops are chosen."""
    test: float = Field(0.25, gt=0, lt=1)
    """Entities of the scores that are reported."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if abs(self.train + self.dev + self.test - 1) > 1e-6:
            raise ValueError(f"train + dev + test must be 1, found {self.train + self.dev + self.test:.3f}")
        return self


class AtlasConfig(Frozen):
    """Configuration of one Atlas; the defaults are those of the default run."""

    kind: Literal["atlas"] = "atlas"
    """Names the kind of corpus: Atlas, which is built from installed packages."""
    seed: int = 17
    """Seed of the splits, of the sampled queries and of the wording of each."""
    shares: SplitShares = SplitShares()
    """Shares of the entity groups in train, dev and test."""
    places: int | None = Field(None, ge=8)
    """Number of places to sample; None takes all. Small worlds are for tests."""
    imagined: int = Field(8, ge=0, le=100)
    """Imagined places per place of the train split; their flags and passages are trained on."""
    families: int | None = Field(None, ge=8)
    """Number of pictograph families to sample, with all their variants; None takes all."""
    picture_size: int = Field(72, ge=16, le=512)
    """Side of flags, pictographs and maps in pixels."""
    page_width: int = Field(320, ge=200, le=1024)
    """Width of a rendered page in pixels."""
    page_height: int = Field(400, ge=250, le=1280)
    """Height of a rendered page in pixels."""
    lookalike_distance: float = Field(0.5, ge=0)
    """Two flags are one entity group if their mean absolute difference per channel (0-255, at 24x24) is below this."""
    queries: int = Field(300, ge=1)
    """Most queries of a test task; a dev task gets half as many."""
    pictograph_pool: int = Field(800, ge=1)
    """Pictographs in the pool of a pictograph task: all of the split, filled up with those of other splits."""
    edit_pool: int = Field(1200, ge=1)
    """Pictures in the pool of an edit task, filled up in the same way."""
    illustrated_sections: tuple[str, ...] = ("Geography", "Government")
    """Sections whose illustrated passages are the pool of T->IT."""
    flag_sections: tuple[str, ...] = ("Government", "People", "Economy")
    """Sections whose passages are the pool of IT->IT, each with the flag of its place."""
    train_languages: tuple[str, ...] = ("de", "es", "fr")
    """Languages besides English whose pictograph names are trained on; the multilingual task asks in all 13."""
