"""A look at passages and pictures before they are imported: which column is what, how long texts are, what is missing.

Guesses by names of columns and by the first rows; a person decides. Imports nothing and writes nothing.
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

_LOOKED_AT = 1_000
"""Rows that are looked at; enough for shares and lengths, and done in a moment."""
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
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
"""What a column may be called, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen.

    Attributes:
        files: Number of tables.
        rows: Rows of all, where that is known without reading them all.
        looked_at: Rows that were looked at.
        unreadable: How many of them can't be read, with the first reason.
        columns: Our name -> theirs, as guessed.
        unused: Columns that nothing is guessed for.
        filled: Share of the rows in which a column of ours has a value.
        characters: Median and longest of the texts.
        scripts: Writing systems of the texts, the most frequent first, with their share of the letters.
        pictures: Number of pictures in the folder or table; None if none are given.
        passed_over: Files that are neither, by suffix.
    """

    files: int
    rows: int | None
    looked_at: int
    unreadable: tuple[int, str]
    columns: Mapping[str, str]
    unused: tuple[str, ...]
    filled: Mapping[str, float]
    characters: tuple[int, int]
    scripts: tuple[tuple[str, float], ...]
    pictures: int | None
    passed_over: str


def survey(passages: Path, pictures: Path | None = None, encoding: str = "utf-8") -> Survey:
    """Look at the first rows.

    Raises:
        FoundryError: A file or folder is missing or of no kind that is read, or no column can be the text.
    """
    table, source = open_table(passages, encoding, pages=True), PictureSource(pictures)
    seen = list(islice(table.rows(), _LOOKED_AT))
    rows = [row.values for row in seen if isinstance(row, Row)]
    errors = [row for row in seen if isinstance(row, RowError)]
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
        rows=len(seen) if len(seen) < _LOOKED_AT else table.count(),
        looked_at=len(seen),
        unreadable=(len(errors), f"{errors[0].location}: {errors[0].message}" if errors else ""),
        columns=columns,
        unused=tuple(name for name in names if name not in columns.values()),
        filled={ours: _share_filled(rows, theirs) for ours, theirs in columns.items()},
        characters=(len(texts[len(texts) // 2]), len(texts[-1])),
        scripts=tuple(scripts_of("".join(texts[-200:]))),
        pictures=source.count() if pictures else None,
        passed_over=count_by_suffix([*table.passed_over, *source.passed_over]),
    )


def guess_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Our name -> theirs: by what columns are called, and for the text, if none is called so, the longest."""
    plain = {name.strip().lower(): name for name in names}
    columns = {
        ours: next(plain[name] for name in known if name in plain)
        for ours, known in _NAMES.items()
        if any(name in plain for name in known)
    }
    if "text" not in columns:
        taken = set(columns.values())
        lengths = {name: _mean_length(rows, name) for name in names if name not in taken}
        if lengths and (longest := max(lengths, key=lambda name: lengths[name])) and lengths[longest] > 0:
            columns = {"text": longest, **columns}
    return columns


def scripts_of(text: str) -> list[tuple[str, float]]:
    """Writing systems of the letters of a text with their share, such as LATIN and CJK, the most frequent first."""
    counts = Counter(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in text if char.isalpha())
    total = counts.total()
    return [(name, count / total) for name, count in counts.most_common(5) if count / total >= 0.01]


def _share_filled(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(row.get(name) not in (None, "", [], {}) for row in rows) / max(len(rows), 1)


def _mean_length(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [row.get(name) for row in rows]
    return sum(len(value) for value in values if isinstance(value, str)) / max(len(values), 1)
