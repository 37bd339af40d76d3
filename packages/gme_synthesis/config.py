"""What can be chosen about synthesis."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gme_data.settings import Frozen


class SynthesisConfig(Frozen):
    """How many questions, how strict the filters, how large the set."""

    seed: int = 0
    """Every choice is a digest of this seed and of what is chosen for; order and number of shards change nothing."""
    wordings_per_fact: int = Field(default=4, ge=1)
    """Questions written about each fact, each with another wording."""
    judged_per_fact: int = Field(default=1, ge=1)
    """How many of them the consistency filter encodes; the others take the verdict of the first.

    Wordings of one fact differ by template only, and encoding is most of the step's time on a CPU.
    """
    consistency_top_k: int = Field(default=20, ge=1)
    """A question is kept if its own passage is among so many nearest of all train passages (the paper's 20)."""
    references: tuple[str, ...] = Field(
        default=("this country", "this place", "the country with this flag", "the pictured country"),
        min_length=1,
    )
    """What an entity's name is replaced by once a picture stands for it."""
    min_picture_side: int = Field(default=32, ge=1)
    """Pictures with a shorter side than this, in pixels, are refused."""
    min_picture_std: float = Field(default=4.0, ge=0)
    """Pictures whose grey values (0-255) vary less than this are refused as blank."""
    picture_filter: Literal["champion", "none"] = "champion"
    """Who scores flags against the names of their places: the champion of an earlier run, or nobody.

    The first run has no champion, and its funnel says so. A rerun keeps the judge that its run began with, so it finds
    everything done; `gme pipeline --new-run`, another corpus or another config takes the champion of the day.
    """
    min_picture_score: float = Field(default=0.0, ge=-1, le=1)
    """Cosine below which a flag is refused."""
    look_alike_distance: float = Field(default=3.0, ge=0)
    """Flags of two entity groups nearer than this (mean absolute difference of 24x24 RGB, 0-255) name neither."""
    caps: dict[str, int] = Field(
        default={
            "place-question": 9_000,
            "page-question": 3_500,
            "illustrated-question": 3_500,
            "flag-question": 7_000,
            "flag-question-illustrated": 3_500,
            "pictograph": 4_000,
            "pictograph-name": 3_000,
            "pictograph-edit": 4_000,
        }
    )
    """Most examples kept of a source, for each of its task types; sources not named are kept whole."""
    shard_facts: int = Field(default=256, ge=1)
    """Facts in one unit of work; a killed run loses at most the unit it was at."""
