"""The configuration of an import of pairs."""

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
"""Columns that a row of the layout ``columns`` may have; it must have a query and a positive."""


class PairsConfig(Sealable):
    """Where pairs and their pictures are, and what their columns mean."""

    kind: Literal["pairs"] = "pairs"
    """The kind of the corpus: queries with the documents that answer them."""
    pairs: Path = Path("pairs.jsonl")
    """A .parquet, .jsonl, .csv or .tsv file (text formats also as .gz), a folder of them, or one of `datasets`."""
    layout: Layout = "auto"
    """``columns`` has a query, a positive and perhaps negatives in columns, as sentence-transformers; ``tevatron`` is
    MS MARCO's ``positive_passages``; ``ms-swift`` has messages; ``mmeb`` is MMEB-train's, ``m-beir`` M-BEIR's.
    ``auto`` goes by the names in the first row."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column of the layout ``columns`` -> its name in the file, such as ``{query: question}``."""
    candidates: Path | None = None
    """The candidate pool that rows of ``m-beir`` name documents of."""
    pictures: Path | None = None
    """A folder of pictures, or a table with `bytes` (or `image`) and `name`; pairs name its pictures by path.
    Where pairs name pictures by URL, it is the folder that ``gme corpus fetch`` fills."""
    fetch: FetchConfig = Field(default=FetchConfig(), exclude=True)
    """Bounds of that fetch; they change no byte of the output, so they are no part of the step's key."""
    pages: bool = False
    """Whether pictures that answer are pages of documents: pairs are then T->VD, and not T->I."""
    instruction: str | None = "Retrieve what answers the query."
    """Instruction before every query whose row has none; null puts none."""
    encoding: str = "utf-8"
    """Encoding of text formats."""
    licence: str = Field(default="LicenseRef-unknown", min_length=1)
    """SPDX expression of the licence of texts and pictures."""
    source: str = Field(default="pairs", min_length=1)
    """Name of the examples' source in a mixture."""
    skip_bad: bool = False
    """Whether rows that can't be used are left out and counted; else the first of them stops the import."""
    dev: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of the entities held out for choices; without a column `entity` a query is one."""
    test: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the entities held out for the report."""
    max_queries: int = Field(default=1_000, ge=2)
    """Most queries of a held-out task; further held-out queries are neither evaluated nor trained on."""
    seed: int = 0
    """Decides what is held out."""

    @field_validator("columns")
    @classmethod
    def _require_known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in COLUMNS:
                near = did_you_mean(name, COLUMNS)
                raise ValueError(f"pairs have no {name!r}.{near} One of {', '.join(COLUMNS)}")
        return columns

    @model_validator(mode="after")
    def _require_pool(self) -> Self:
        if self.layout == "m-beir" and self.candidates is None:
            raise ValueError("the layout 'm-beir' names documents by id: `candidates` must say where the pool is")
        return self

    def contents(self) -> list[Any]:
        """Returns, for `Sealable.contents`, the digests of the pairs, the candidate pool and the pictures."""
        from gme_data.tables import open_table  # imported late, since reading a pipeline file needs no reader of tables
        from gme_synthesis.corpus.import_pictures import PictureSource

        table = open_table(self.pairs, self.encoding)
        pool = [sha256_file(file.path) for file in open_table(self.candidates).files] if self.candidates else []
        return [table.digest(), pool, PictureSource(self.pictures).identity()]
