"""What an import may be told: where passages and pictures are, and what their columns mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from gme_data.errors import did_you_mean
from gme_data.settings import Sealable

COLUMNS = (
    "id",
    "text",
    "title",
    "aliases",
    "kind",
    "domain",
    "entity_group",
    "facts",
    "picture",
    "page",
    "licence",
    "source",
)
"""What a passage may say; only `text` must be there."""


class ImportConfig(Sealable):
    """Where passages and pictures are, and what their columns mean."""

    kind: Literal["files"] = "files"
    """Passages and pictures of one's own."""
    passages: Path = Path("passages.jsonl")
    """A .parquet, .jsonl, .csv, .tsv or .pdf file (text formats also as .gz), a folder of them, or one of `datasets`. A
    page of a PDF is a passage, with its picture as the page that shows it."""
    pictures: Path | None = None
    """A folder of pictures, or a table with `bytes` (or `image`), `name` and perhaps `caption`."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column -> theirs, where it differs, such as ``{text: body, title: heading}``."""
    encoding: str = "utf-8"
    """Of text formats, where it is not UTF-8: ``cp1252``, ``latin-1``, ``utf-16`` ..."""
    licence: str = Field(default="LicenseRef-unknown", min_length=1)
    """SPDX expression of passages and pictures that say none themselves."""
    source: str = "own"
    """What the corpus is called in the records."""

    @field_validator("columns")
    @classmethod
    def _are_known(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in COLUMNS:
                near = did_you_mean(name, COLUMNS)
                raise ValueError(f"passages have no {name!r}.{near} One of {', '.join(COLUMNS)}")
        return columns

    def contents(self) -> list[Any]:
        """See `Sealable.contents`."""
        from gme_data.tables import open_table  # who only reads a pipeline file needs no reader of tables
        from gme_synthesis.corpus.import_pictures import PictureSource

        table = open_table(self.passages, self.encoding, pages=True)
        pictures = PictureSource(self.pictures)
        return [table.digest(), pictures.identity(), list(table.passed_over), pictures.passed_over]
