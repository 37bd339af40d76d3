"""A user's corpus as rows to embed: ids are checked before the work begins, cells become items, rows get a label.

Knows columns and cells, and how errors name a row; nothing of models, shards or vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gme_data.cells import CellError, id_cell, picture_cell, text_cell
from gme_data.digests import sha256_bytes, sha256_file
from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import Images
from gme_data.items import Item
from gme_data.tables import Row, RowError, Table, open_table
from gme_embedder.corpus.job import CorpusIdentity
from gme_embedder.corpus.picture_files import PictureVersion
from gme_embedder.processing.inputs import EmbedderInput

CONTENT = ("text", "title", "image")
_COLUMNS = ("id", *CONTENT)
_HINT = "Columns: id, and text, title and/or image."
_NO_PICTURE = "-" * 64
_ID_HINT = "Every row needs an id of its own: a text or a whole number."


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """A row of a corpus.

    Attributes:
        location: File and row, such as ``corpus.parquet, row 7``.
        id: Its id; empty if it has none that can be read.
        item: What is embedded; empty if `error` is set.
        picture: Path of its picture, if that is a file beside the table.
        error: Why there is nothing to embed; None for a good row.
    """

    location: str
    id: str
    item: EmbedderInput
    picture: Path | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """Location and id, for errors."""
        return f"{self.location}, id '{self.id}'" if self.id else self.location

    def content(self, pictures: Mapping[Path, PictureVersion]) -> bytes | None:
        """Returns the sha256 of what is embedded: the text, with the title before it, and the bytes of the picture.

        Args:
            pictures: The versions of the picture files that were read.

        Returns:
            None for a row with nothing to embed, or whose picture file can't be read.
        """
        if self.error is not None:
            return None
        text, picture = _text_and_picture(self.item)
        if self.picture is not None:
            file = pictures.get(self.picture)
            return _content_digest(text, file.sha256) if file else None
        return _content_digest(text, picture)


def open_corpus(source: Path) -> Table:
    """Finds the tables of a corpus: a file, a folder of them, or a `datasets` folder.

    Raises:
        FoundryError: There is none, one can't be read, or lacks ``id`` or all of ``text``, ``title`` and ``image``.
    """
    table = open_table(source)
    for file in table.files:
        columns = file.columns()
        if columns is None:  # each JSON line has columns of its own, so the rows are checked instead
            continue
        if "id" not in columns or not set(columns) & set(CONTENT):
            near = did_you_mean("id", columns) if "id" not in columns else ""
            raise FoundryError(
                f"{file.path}: expected columns id and text, title or image; found {', '.join(columns)}.{near}",
                hint=_HINT,
            )
    return table


def identify_corpus(table: Table, *, skip_bad_rows: bool = False) -> CorpusIdentity:
    """Reads all ids once, checks that they are unique, and digests the files.

    In memory are 8 bytes for each row.

    Args:
        table: See `open_corpus`.
        skip_bad_rows: Accept rows that can't be read or have no id; they will be skipped.

    Raises:
        FoundryError: An id that stands twice, or (unless `skip_bad_rows`) a row without an id or that can't be read;
            names file, row and id.
    """
    # Eight bytes an id instead of the id itself, so that a corpus of any size fits into memory.
    digests = bytearray()
    rows = 0
    for row in table.rows(["id"]):
        rows += 1
        id_, error = read_id(row)
        if error is None:
            digests += _short_digest(id_)
        elif not skip_bad_rows:
            raise FoundryError(
                f"{row.location}: {error}.",
                hint=f"{_ID_HINT} `--on-error skip` leaves such rows out.",
            )
    _require_unique(table, np.frombuffer(digests, np.uint64))
    return CorpusIdentity(files=digest_files(table), rows=rows)


def digest_files(table: Table) -> dict[str, str]:
    """Returns the sha256 of each file of a table, by its name in `file_names`."""
    return {name: sha256_file(file.path) for name, file in zip(file_names(table), table.files, strict=True)}


def file_names(table: Table) -> list[str]:
    """Returns the names of the files in ``job.json``: paths below the folder; a table that is one file is ``.``."""
    single = len(table.files) == 1 and table.path == table.files[0].path
    return ["."] if single else [file.name for file in table.files]


def read_id(row: Row | RowError) -> tuple[str, str | None]:
    """Returns the id of a row and None, or an empty id and what is wrong with it."""
    if isinstance(row, RowError):
        return "", row.message
    if "id" not in row.values:
        return "", "there is no 'id'"
    try:
        return id_cell(row.values["id"]), None
    except CellError as error:
        return "", f"id: {error}"


def read_corpus(table: Table, images: Images | None = None) -> Iterator[CorpusRow]:
    """Yields all rows in order, bad ones among them.

    Args:
        table: See `open_corpus`.
        images: Where image ids are looked up; another text in ``image`` is a path.

    Raises:
        FoundryError: A file can't be read on; names it.
    """
    for row in table.rows(_COLUMNS):
        id_, error = read_id(row)
        if isinstance(row, RowError) or error is not None:
            yield CorpusRow(row.location, "", "", error=error)
            continue
        try:
            yield _read_row(row.location, id_, row.values, images)
        except CellError as cell_error:
            yield CorpusRow(row.location, id_, "", error=str(cell_error))


def _read_row(location: str, id_: str, values: Mapping[str, Any], images: Images | None) -> CorpusRow:
    content: dict[str, str | bytes | Path] = {}
    for column in ("title", "text"):
        try:
            text = text_cell(values.get(column))
        except CellError as error:
            raise CellError(error.reason, f"{column}: {error}") from error
        if text:
            content[column] = text
    image = picture_cell(values.get("image"))
    if image is None and not content:
        return CorpusRow(location, id_, "", error="no text, title or image")
    if isinstance(image, str) and images is not None and image in images:
        text = " ".join(str(content[name]) for name in ("title", "text") if name in content)
        return CorpusRow(location, id_, Item(text or None, image))
    if isinstance(image, str):
        return CorpusRow(location, id_, {**content, "image": image}, Path(image))
    return CorpusRow(location, id_, {**content, "image": image} if image is not None else content)


def _text_and_picture(item: EmbedderInput) -> tuple[str | None, str | None]:
    """Returns the text of a row, and the sha256 of a picture in the table or in a store, where it is the id."""
    if isinstance(item, dict):
        text = " ".join(item[name] for name in ("title", "text") if name in item) or None
        image = item.get("image")
        return text, sha256_bytes(image) if isinstance(image, bytes) else None
    return (item.text, item.image) if isinstance(item, Item) else (None, None)


def _content_digest(text: str | None, picture: str | None) -> bytes:
    # The sha256 of a picture and `_NO_PICTURE` are of one length, so no text can be taken for the end of a digest.
    content = (picture or _NO_PICTURE) + ("" if text is None else f":{text}")
    return hashlib.sha256(content.encode()).digest()


def _require_unique(table: Table, digests: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
    ordered = np.sort(digests)
    repeated = {digest.tobytes() for digest in np.unique(ordered[1:][ordered[1:] == ordered[:-1]])}
    if not repeated:
        return
    # Digests are short, so two ids may share one: the ids themselves decide.
    first: dict[str, str] = {}
    for row in table.rows(["id"]):
        id_, error = read_id(row)
        if error is not None or _short_digest(id_) not in repeated:
            continue
        if id_ in first:
            raise FoundryError(f"The id '{id_}' stands twice: {first[id_]} and {row.location}.", hint=_ID_HINT)
        first[id_] = row.location


def _short_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, usedforsecurity=False).digest()
