"""What an import of pairs may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gme_data.digests import sha256_file
from gme_data.errors import did_you_mean
from gme_data.settings import Sealable
from gme_synthesis.steps.fetching import FetchConfig

Layout = Literal["auto", "columns", "tevatron", "ms-swift", "mmeb", "m-beir"]
COLUMNS = (
    *("query", "query_picture", "positive", "positive_picture", "negative", "negative_picture"),
    *("score", "entity", "instruction"),
)
"""What a row of the layout ``columns`` may say; a query and a positive must be there."""


class PairsConfig(Sealable):
    """Where pairs and their pictures are, and what their columns mean."""

    kind: Literal["pairs"] = "pairs"
    """Queries with what answers them."""
    pairs: Path = Path("pairs.jsonl")
    """A .parquet, .jsonl, .csv or .tsv file (text formats also as .gz), a folder of them, or one of `datasets`."""
    layout: Layout = "auto"
    """``columns`` has a query, a positive and perhaps negatives in columns, as sentence-transformers; ``tevatron`` is
    MS MARCO's ``positive_passages``; ``ms-swift`` has messages; ``mmeb`` is MMEB-train's, ``m-beir`` M-BEIR's.
    ``auto`` goes by the names in the first row."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column of the layout ``columns`` -> theirs, where it differs, such as ``{query: question}``."""
    candidates: Path | None = None
    """The candidate pool that ``m-beir`` names documents of."""
    pictures: Path | None = None
    """A folder of pictures, or a table with `bytes` (or `image`) and `name`; pairs name its pictures by path.
    Where they name them by address, it is the folder that ``gme corpus fetch`` fills."""
    fetch: FetchConfig = Field(default=FetchConfig(), exclude=True)
    """Bounds of that fetch; they change no byte of the output, so they are no part of the step's key."""
    pages: bool = False
    """Whether pictures that answer are pages of documents: pairs are then T->VD, and not T->I."""
    instruction: str | None = "Retrieve what answers the query."
    """Before every query of a row that has none of its own; null puts none."""
    encoding: str = "utf-8"
    """Of text formats, where it is not UTF-8."""
    licence: str = Field(default="LicenseRef-unknown", min_length=1)
    """SPDX expression of all of it."""
    source: str = Field(default="pairs", min_length=1)
    """What the examples are called in a mixture."""
    skip_bad: bool = False
    """Leave out rows that can't be used, and count them; else the first one stops the import."""
    dev: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of the entities held out for choices; without a column `entity` a query is one."""
    test: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the entities held out for the report."""
    max_queries: int = Field(default=1_000, ge=2)
    """Most queries of a held-out task; what is held out beyond it is neither asked nor trained on."""
    seed: int = 0
    """Decides what is held out."""

    @field_validator("columns")
    @classmethod
    def _are_known(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in COLUMNS:
                near = did_you_mean(name, COLUMNS)
                raise ValueError(f"pairs have no {name!r}.{near} One of {', '.join(COLUMNS)}")
        return columns

    @model_validator(mode="after")
    def _has_a_pool(self) -> Self:
        if self.layout == "m-beir" and self.candidates is None:
            raise ValueError("the layout 'm-beir' names documents by id: `candidates` must say where the pool is")
        return self

    def contents(self) -> list[Any]:
        """See `Sealable.contents`."""
        from gme_data.tables import open_table  # who only reads a pipeline file needs no reader of tables
        from gme_synthesis.corpus.import_pictures import PictureSource

        table = open_table(self.pairs, self.encoding)
        pool = [sha256_file(file.path) for file in open_table(self.candidates).files] if self.candidates else []
        return [table.digest(), pool, PictureSource(self.pictures).identity()]
