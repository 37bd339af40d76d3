"""The configuration of synthesis over Atlas: the sections of any corpus, with the defaults of the default run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gme_synthesis.corpus.config import PictureFilterConfig, SearchConfig, SynthesisConfig


class FlagsConfig(SearchConfig):
    """Flags are the portraits of Atlas, in two styles each."""

    by: Literal["none", "portraits", "bank"] = "portraits"
    """Where flags come from: ``portraits`` are the flags of the place itself, ``bank`` searches the captions of all
    flags, ``none`` uses none."""
    count: int = Field(default=2, ge=1)
    """Flags for each place."""


class FlagFilterConfig(PictureFilterConfig):
    """`PictureFilterConfig` with the champion as picture scorer, to which unrelated pairs score around 0."""

    model: str = "champion"
    """The picture scorer of flags and the names of their places, see `PictureFilterConfig`; empty skips the score."""
    min_score: float = Field(default=0.0, ge=-1, le=1)
    """Cosine below which a flag is refused."""
    look_alike_distance: float = Field(default=3.0, ge=0)
    """No flag stands for a place of which a flag is nearer than this to one of another place (mean absolute difference
    of 24x24 RGB, 0-255)."""


class AtlasSynthesisConfig(SynthesisConfig):
    """`SynthesisConfig` with defaults for Atlas, which supplies its own tasks: `dev` and `test` hold nothing out."""

    shard: int = Field(default=64, ge=1)
    """Passages in one shard of work; each passage gets some 15 questions."""
    near_duplicates: float = Field(default=1.0, gt=0, le=1)
    """As in `SynthesisConfig`; passages of one section are worded alike, so 1 refuses exact repeats only."""
    wordings_per_fact: int = Field(default=4, ge=0)
    """Questions about each fact of a passage, each in another wording; 0 asks one question about each passage."""
    references: tuple[str, ...] = ("this country", "this place", "the country with this flag", "the pictured country")
    """References that replace a place's name once a flag stands for it; the first must read well before "'s"."""
    search: FlagsConfig = FlagsConfig()
    """How flags are searched for."""
    picture_filter: FlagFilterConfig = FlagFilterConfig()
    """Which flags are kept."""
    pictures_per_question: int = Field(default=1, ge=1)
    """Examples with different flags made of one question, at most."""
    generation: None = None
    """No picture is generated: the pictures of an Atlas run are those of Atlas."""
    render_pages: Literal[False] = False
    """No page is rendered: Atlas supplies the pages of its passages."""
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
    """Most examples of a source for each of its task types; sources that are not named have no cap."""
