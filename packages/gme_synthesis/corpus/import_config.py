"""The configuration of an import: where passages and pictures are, and what their columns mean."""

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
"""The columns of a passage; only `text` is required."""


class ImportConfig(Sealable):
    """Where passages and pictures are, and what their columns mean."""

    kind: Literal["files"] = "files"
    """``files`` are the user's own passages and pictures."""
    passages: Path = Path("passages.jsonl")
    """A .parquet, .jsonl, .csv, .tsv or .pdf file (text formats also as .gz), a folder of such files, or a folder that
    `datasets` saved. A page of a PDF is a passage, with its picture as the page that shows it."""
    pictures: Path | None = None
    """A folder of pictures, or a table with `bytes` (or `image`), `name` and perhaps `caption`."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column -> theirs, where it differs, such as ``{text: body, title: heading}``."""
    encoding: str = "utf-8"
    """Encoding of text formats, where it is not UTF-8: ``cp1252``, ``latin-1``, ``utf-16`` ..."""
    licence: str = Field(default="LicenseRef-unknown", min_length=1)
    """SPDX expression of passages and pictures that have none themselves."""
    source: str = "own"
    """Name of the corpus in the sources of its passages and pictures."""

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
        # Imported here: whoever only reads a pipeline file needs no reader of tables.
        from gme_data.tables import open_table
        from gme_synthesis.corpus.import_pictures import PictureSource

        table = open_table(self.passages, self.encoding, pages=True)
        pictures = PictureSource(self.pictures)
        return [table.digest(), pictures.identity(), list(table.passed_over), pictures.passed_over]
