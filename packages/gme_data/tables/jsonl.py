"""JSON lines: an object a line; a line that is none is a `RowError`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gme_data.tables.rows import Row, RowError
from gme_data.tables.textfile import Lines

_EXCERPT = 200


def json_lines_rows(path: Path, name: str, encoding: str) -> Iterator[Row | RowError]:
    """Yields the rows of a file; lines without any character are no rows.

    Args:
        path: The file.
        name: What rows call it.
        encoding: Of the text.

    Raises:
        FoundryError: The file can't be read or decoded.
    """
    decode = json.JSONDecoder(object_pairs_hook=_distinct).decode
    with Lines(path, encoding) as lines:
        for number, line in lines:
            if line.isspace():
                continue
            try:
                row = decode(line)
            # Numbers of more than 4,300 digits are a ValueError, brackets without end a RecursionError.
            except (ValueError, RecursionError) as error:
                yield RowError(name, "line", number, "not-json", f"not JSON: {error}", line[:_EXCERPT].rstrip())
                continue
            if not isinstance(row, dict):
                message = f"expected a JSON object, found {type(row).__name__}"
                yield RowError(name, "line", number, "not-json", message, line[:_EXCERPT].rstrip())
                continue
            yield Row(name, "line", number, row)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object and refuses equal names, of which the standard reader would take the last."""
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!a} stands twice")
    return row
