"""Synthesis over Atlas: the sections of any corpus, with the defaults of the default run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gme_synthesis.corpus.config import FilterConfig, SearchConfig, SynthesisConfig


class FlagsConfig(SearchConfig):
    """Flags are the portraits of Atlas, in two styles each."""

    by: Literal["none", "portraits", "bank"] = "portraits"
    """``portraits`` are the flags of the very place; ``bank`` finds by captions among all flags."""
    count: int = Field(default=2, ge=1)
    """Pictures for each entity."""


class FlagFilterConfig(FilterConfig):
    """As `FilterConfig`: the champion judges, on a scale where unrelated pairs lie around 0."""

    model: str = "champion"
    """Who scores flags against the names of their places, see `FilterConfig`; empty is nobody."""
    min_score: float = Field(default=0.0, ge=-1, le=1)
    """Cosine below which a flag is refused."""
    look_alike_distance: float = Field(default=3.0, ge=0)
    """Places of which a flag is nearer than this to one of another place (mean absolute difference of 24x24 RGB, 0-255)
    are shown by no flag."""


class AtlasSynthesisConfig(SynthesisConfig):
    """The same over Atlas, which brings examples and tasks along: `dev` and `test` hold nothing out."""

    shard: int = Field(default=64, ge=1)
    """Passages in one unit of work; each has some 15 questions."""
    near_duplicates: float = Field(default=1.0, gt=0, le=1)
    """As in `SynthesisConfig`; passages of one section are worded alike, and 1 refuses exact repeats alone."""
    wordings_per_fact: int = Field(default=4, ge=0)
    """Questions about each fact of a passage, each in another wording; 0 asks one question of a passage."""
    references: tuple[str, ...] = ("this country", "this place", "the country with this flag", "the pictured country")
    """What a place's name is replaced by once a flag stands for it; the first must read well before "'s"."""
    search: FlagsConfig = FlagsConfig()
    """Which flags."""
    picture_filter: FlagFilterConfig = FlagFilterConfig()
    """Which of them stay."""
    pictures_per_question: int = Field(default=1, ge=1)
    """Examples with different flags made of one question, at most."""
    generation: None = None
    """The pictures of an Atlas run are those of Atlas."""
    render_pages: Literal[False] = False
    """Atlas brings the pages of its passages."""
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
