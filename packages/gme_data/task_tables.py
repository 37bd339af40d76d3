"""The three tables of a task as people have them: any format of `gme_data.tables`, BEIR's layout and names among them.

``corpus`` and ``queries`` are a file or a folder of that name; ``qrels`` too, or one file a split in a folder of that
name, as BEIR has them, or TREC's four columns in a ``.qrels``, ``.qrel``, ``.trec`` or ``.txt`` file. A row that can't
be parsed is reported with its file and number. Knows columns; not tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.cells import CellError, id_cell, is_missing, picture_cell, text_cell
from gme_data.errors import FoundryError, did_you_mean
from gme_data.items import Item
from gme_data.parquet import UNREADABLE, read_rows
from gme_data.tables import Row, Table, open_table
from gme_data.tables.textfile import Lines

_ID, _QUERY, _DOC, _RELEVANCE = (
    ("id", "_id"),
    ("query_id", "query-id"),
    ("doc_id", "corpus-id", "corpus_id"),
    ("relevance", "score"),
)
"""The names of each column: that of our tables, then those of BEIR and mteb."""
_CONTENT = ("text", "title", "image")
_MAX_RELEVANCE = 2**31 - 1
_TREC_COLUMNS = ("query id", "iteration", "document id", "relevance")
_TREC = (".qrels", ".qrel", ".trec", ".txt")
_MAX_NAMED = 3
"""An error names this many rows; of the others it gives the number."""


class ItemRow(NamedTuple):
    """A query or a document. An item without text and picture is the empty text."""

    id: str
    item: Item
    entity_group: str
    subset: str
    licence: str


class JudgementRow(NamedTuple):
    """A judged pair of ids."""

    query: str
    doc: str
    relevance: int


def read_items(folder: Path, stem: str, schema: pa.Schema, *, titled: bool) -> list[ItemRow]:
    """Returns the rows of ``corpus`` or ``queries``.

    Args:
        folder: Of the task.
        stem: Name of the table.
        schema: As we write it.
        titled: Whether a column ``title`` is put before the text, as mteb does with documents.

    Raises:
        FoundryError: No such table or more than one, a column is missing, or rows can't be taken: without an id, with
            a list, an object or bytes where a text or an id is expected, or not readable at all.
    """
    path = _table_path(folder, stem)
    # A table as we write it has the right types, so its cells need no parsing one by one.
    if _is_ours(path, schema, apart_from={"title"} if titled else set()):
        rows = read_rows(path, schema)
        _refuse([f"{path.name}, row {n}: no id" for n, row in enumerate(rows) if not row["id"].strip()], path)
        return [
            ItemRow(
                row["id"],
                Item(row["text"], row["image"]) if row["text"] or row["image"] else Item(""),
                row["entity_group"],
                row.get("subset") or "",
                row["licence"],
            )
            for row in rows
        ]
    table = open_table(path)
    _require(table, [_ID, _CONTENT])
    return list(_parsed_rows(table, lambda values: _item_row(values, titled=titled)))


def read_judgements(folder: Path, split: str, schema: pa.Schema) -> list[JudgementRow]:
    """Returns the rows of ``qrels``.

    Args:
        folder: Of the task.
        split: Which file is read, where there is one for each.
        schema: As we write it.

    Raises:
        FoundryError: As `read_items`; or a relevance is no whole number.
    """
    path = _table_path(folder, "qrels")
    if path.is_dir():
        path = _of_split(path, split)
    if path.suffix.lower() in _TREC:
        return list(_trec_rows(path))
    if _is_ours(path, schema):
        return [JudgementRow(row["query_id"], row["doc_id"], row["relevance"]) for row in read_rows(path, schema)]
    table = open_table(path)
    _require(table, [_QUERY, _DOC, _RELEVANCE])
    return list(_parsed_rows(table, _judgement_row))


def has_table(folder: Path, stem: str) -> bool:
    """Tells whether a table, or what should be one, lies in a folder."""
    return (folder / stem).is_dir() or bool(_files_named(folder, stem))


def _of_split(folder: Path, split: str) -> Path:
    """Returns the table of a split where there is one for each, else the folder, whose files are one table."""
    if of_split := _files_named(folder, split):
        return _single_table(of_split)
    others = [
        path.name for name in ("train", "dev", "valid", "validation", "test") for path in _files_named(folder, name)
    ]
    if others:
        raise FoundryError(
            f"{folder} has no judgements of the split {split}; there are {', '.join(others)}.",
            hint="Name the split in task.yaml, or leave there the one that is meant.",
        )
    return folder


def _trec_rows(path: Path) -> Iterator[JudgementRow]:
    """Yields the judgements of a qrels file of trec_eval: query, iteration (unused), document, relevance."""
    # All bad lines are collected, so that a user can mend them together.
    problems: list[str] = []
    with Lines(path, "utf-8") as lines:
        for number, line in lines:
            cells = line.split()
            try:
                if cells and len(cells) != len(_TREC_COLUMNS):
                    raise CellError("no-judgement", f"expected {', '.join(_TREC_COLUMNS)}, found {len(cells)} columns")
                if cells:
                    yield JudgementRow(cells[0], cells[2], relevance_cell(cells[3]))
            except CellError as error:
                problems.append(f"{path.name}, line {number}: {error}")
    _refuse(problems, path)


def _item_row(values: dict[str, Any], *, titled: bool) -> ItemRow:
    picture = picture_cell(values.get("image"))
    if isinstance(picture, bytes):
        raise CellError(
            "not-an-id",
            "column 'image' holds a picture; expected the id of one in the folder that `images` of task.yaml names",
        )
    title = _cell(text_cell, values, ("title",)) if titled else ""
    text = f"{title} {_cell(text_cell, values, ('text',))}".strip() if title else _cell(text_cell, values, ("text",))
    return ItemRow(
        _cell(id_cell, values, _ID),
        Item(text or (None if picture else ""), picture),
        *(_cell(text_cell, values, (name,)) for name in ("entity_group", "subset", "licence")),
    )


def _judgement_row(values: dict[str, Any]) -> JudgementRow:
    return JudgementRow(
        _cell(id_cell, values, _QUERY), _cell(id_cell, values, _DOC), _cell(relevance_cell, values, _RELEVANCE)
    )


def relevance_cell(value: object) -> int:
    """Returns a relevance: a whole number, also as a float or as text.

    Raises:
        CellError: It is nothing, a truth value, a fraction, no number, or beyond 32 bits.
    """
    expected = "expected a whole number"
    if is_missing(value):
        raise CellError("no-relevance", f"{expected}, found nothing")
    # A truth value is an int in Python, and would count as relevance 0 or 1.
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | float | np.number):
        raise CellError("bad-relevance", f"{expected}, found {type(value).__name__} {ascii(value)[:40]}")
    try:
        number = float(value)
    except ValueError as error:
        raise CellError("bad-relevance", f"{expected}, found {ascii(value)[:40]}") from error
    if not number.is_integer() or abs(number) > _MAX_RELEVANCE:
        raise CellError("bad-relevance", f"{expected} of 32 bits, found {ascii(value)[:40]}")
    return int(number)


def _cell(read: Any, values: dict[str, Any], names: tuple[str, ...]) -> Any:  # noqa: ANN401 - what `read` returns
    """Returns the first of the columns `names` that a row has, as `read` takes it; an error names it."""
    name = next((name for name in names if name in values), names[0])
    try:
        return read(values.get(name))
    except CellError as error:
        raise CellError(error.reason, f"column '{name}': {error}") from error


def _parsed_rows(table: Table, parse: Any) -> Iterator[Any]:  # noqa: ANN401 - rows as `parse` returns them
    """Yields `parse` of each row; all rows are read before those that it refuses are reported."""
    problems: list[str] = []
    for row in table.rows():
        if not isinstance(row, Row):
            problems.append(f"{row.location}: {row.message}")
            continue
        try:
            yield parse(row.values)
        except CellError as error:
            problems.append(f"{row.location}: {error}")
    _refuse(problems, table.path)


def _refuse(problems: list[str], path: Path) -> None:
    if problems:
        more = f"; and {len(problems) - _MAX_NAMED:,} more rows" if len(problems) > _MAX_NAMED else ""
        raise FoundryError(
            f"{path}: {'; '.join(problems[:_MAX_NAMED])}{more}.", hint="Mend these rows, or leave them out."
        )


def _require(table: Table, columns: list[tuple[str, ...]]) -> None:
    """Checks that every file has each column, by one of its names. JSON lines are checked one by one."""
    for file in table.files:
        present = file.columns()
        for names in columns:
            if present is None or set(names) & set(present):
                continue
            raise FoundryError(
                f"{file.path}: no column {' or '.join(map(repr, names))}.{did_you_mean(names[0], present)} "
                f"It has {', '.join(present)}."
            )


def _is_ours(path: Path, schema: pa.Schema, apart_from: set[str] | None = None) -> bool:
    """Tells whether a table is as we write it, so that its columns can be taken as they are."""
    if path.suffix != ".parquet" or not path.is_file():
        return False
    try:
        actual = [(field.name, field.type) for field in pq.read_schema(path)]
    except UNREADABLE:
        return False  # `open_table` says what is wrong with it
    types = dict(actual)
    same = all(types.get(field.name) == field.type for field in schema)
    return same and len(types) == len(actual) and not (apart_from or set()) & set(types)


def _table_path(folder: Path, stem: str) -> Path:
    paths = [folder / stem] if (folder / stem).is_dir() else []
    paths += _files_named(folder, stem)
    if not paths:
        raise FoundryError(
            f"Missing table: {folder / stem}.parquet", hint="A task has corpus, queries and qrels; docs/umrb.md."
        )
    return _single_table(paths)


def _files_named(folder: Path, stem: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"{stem}.*")) if path.is_file() and not path.name.endswith("~")]


def _single_table(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise FoundryError(
            f"{paths[0].parent}: {' and '.join(path.name for path in paths)}: which of them is the table?",
            hint="Leave one of them there.",
        )
    return paths[0]
