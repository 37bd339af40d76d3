"""A survey of passages and pictures before their import: which column is what, how long texts are, what is missing.

Columns are guessed by their names and by the first rows; a person decides. Nothing is imported and nothing is written.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gme_data.errors import FoundryError
from gme_data.tables import Row, RowError, count_by_suffix, open_table
from gme_synthesis.corpus.import_pictures import PictureSource

_SAMPLE_ROWS = 1_000
"""So many rows are surveyed: enough for shares and lengths, and quick."""
_COLUMN_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "text": ("text", "body", "content", "passage", "contents", "document", "abstract", "description", "paragraph"),
        "title": ("title", "name", "heading", "headline", "label", "product_name"),
        "id": ("id", "_id", "docid", "doc_id", "pid", "passage_id", "uuid", "sku"),
        "picture": ("picture", "image", "image_path", "img", "image_file", "file_name", "filename", "photo"),
        "page": ("page", "page_image", "screenshot"),
        "kind": ("kind", "type", "category"),
        "aliases": ("aliases", "synonyms", "also_known_as"),
        "facts": ("facts", "attributes", "infobox", "properties"),
        "entity_group": ("entity_group", "entity", "group"),
        "domain": ("domain",),
        "licence": ("licence", "license"),
        "source": ("source", "origin", "url"),
    }
)
"""Names that a column of ours may have in a user's table, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first rows and the list of files show.

    Attributes:
        files: Number of tables.
        rows: Rows of all tables, where that is known without reading them all.
        sampled: Number of rows that were read.
        unreadable: How many of the sampled rows can't be read, with the first reason.
        columns: Our name -> theirs, as guessed.
        unused: Columns that nothing is guessed for.
        filled: Share of the sampled rows in which a column of ours has a value.
        characters: Median and maximum length of the texts, in characters.
        scripts: Writing systems of the texts, the most frequent first, with their share of the letters.
        pictures: Number of pictures in the folder or table; None if there is neither.
        passed_over: Files that are neither tables nor pictures, by suffix.
    """

    files: int
    rows: int | None
    sampled: int
    unreadable: tuple[int, str]
    columns: Mapping[str, str]
    unused: tuple[str, ...]
    filled: Mapping[str, float]
    characters: tuple[int, int]
    scripts: tuple[tuple[str, float], ...]
    pictures: int | None
    passed_over: str


def survey(passages: Path, pictures: Path | None = None, encoding: str = "utf-8") -> Survey:
    """Surveys the first rows of a table of passages, and the list of pictures.

    Args:
        passages: A table, a folder of tables, or a PDF.
        pictures: A folder or a table of pictures.
        encoding: Encoding of text formats.

    Raises:
        FoundryError: A file or folder is missing or of no kind that is read, or no column can be the text.
    """
    table, source = open_table(passages, encoding, pages=True), PictureSource(pictures)
    sample = list(islice(table.rows(), _SAMPLE_ROWS))
    rows = [row.values for row in sample if isinstance(row, Row)]
    errors = [row for row in sample if isinstance(row, RowError)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = guess_columns(names, rows)
    if "text" not in columns:
        raise FoundryError(
            f"{passages}: no column holds texts. It has {', '.join(names) or 'none'}.",
            hint="A table of passages has one text in each row, best in a column called `text`.",
        )
    texts = sorted((str(row.get(columns["text"]) or "") for row in rows), key=len)
    return Survey(
        files=len(table.files),
        rows=len(sample) if len(sample) < _SAMPLE_ROWS else table.count(),
        sampled=len(sample),
        unreadable=(len(errors), f"{errors[0].location}: {errors[0].message}" if errors else ""),
        columns=columns,
        unused=tuple(name for name in names if name not in columns.values()),
        filled={ours: _share_filled(rows, theirs) for ours, theirs in columns.items()},
        characters=(len(texts[len(texts) // 2]), len(texts[-1])),
        # Unicode names are slow, and the longest texts hold most of the letters.
        scripts=tuple(scripts_of("".join(texts[-200:]))),
        pictures=source.count() if pictures else None,
        passed_over=count_by_suffix([*table.passed_over, *source.passed_over]),
    )


def guess_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Guesses the columns, our name -> theirs, by their names; the text falls back to the column of longest values."""
    normalised = {name.strip().lower(): name for name in names}
    columns = {
        ours: next(normalised[name] for name in candidates if name in normalised)
        for ours, candidates in _COLUMN_NAMES.items()
        if any(name in normalised for name in candidates)
    }
    if "text" not in columns:
        # A column with another meaning by its name, such as a long list of aliases, is not taken for the text.
        guessed = set(columns.values())
        lengths = {name: _mean_length(rows, name) for name in names if name not in guessed}
        if lengths and (longest := max(lengths, key=lambda name: lengths[name])) and lengths[longest] > 0:
            columns = {"text": longest, **columns}
    return columns


def scripts_of(text: str) -> list[tuple[str, float]]:
    """Returns the writing systems of a text's letters with their share, the most frequent first: LATIN, CJK ..."""
    # The first word of a letter's Unicode name is its script: "LATIN SMALL LETTER A", "CJK UNIFIED IDEOGRAPH-4E2D".
    counts = Counter(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in text if char.isalpha())
    total = counts.total()
    return [(name, count / total) for name, count in counts.most_common(5) if count / total >= 0.01]


def _share_filled(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(row.get(name) not in (None, "", [], {}) for row in rows) / max(len(rows), 1)


def _mean_length(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [row.get(name) for row in rows]
    return sum(len(value) for value in values if isinstance(value, str)) / max(len(values), 1)
