"""The pictures of an import: a folder of files, or a table with their bytes; each once into the image store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from gme_data.cells import CellError, id_cell, is_missing, picture_cell, text_cell
from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.images import ALLOWED_FORMATS, MAX_BYTES, ImageRecord, decode_rgb
from gme_data.tables import Row, RowError, Table, TableFile, open_table
from gme_data.tables.pdf import pdf_pictures
from gme_synthesis.corpus.import_index import ImportIndex
from gme_synthesis.steps.cleaning import plain_label

PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
)
_NAME_COLUMNS = ("name", "id", "path")
_PICTURE_COLUMNS = ("bytes", "image")


class PictureFile(NamedTuple):
    """A picture of the user.

    Attributes:
        name: The name that rows refer to it by.
        location: File, or file and row.
        data: Encoded bytes.
        caption: What it shows, in words; may be empty.
        licence: SPDX expression; may be empty.
    """

    name: str
    location: str
    data: bytes
    caption: str = ""
    licence: str = ""


class PictureSource:
    """The pictures of an import, in a folder or a table.

    Args:
        path: A folder of pictures, a table with a column `bytes` or `image`, or None for no pictures.

    Raises:
        FoundryError: There is no such folder, or it is no table of pictures.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.files: list[Path] = []
        self.passed_over: list[str] = []
        self._table: Table | None = None
        if path is None:
            return
        if not path.is_dir() or _is_table_folder(path):
            self._table = _open_pictures_table(path)
            return
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            # Hidden files and folders are the operating system's and version control's, not the user's pictures.
            if not file.is_file() or any(part.startswith(".") for part in relative.parts):
                continue
            if file.suffix.lower() in PICTURE_SUFFIXES:
                self.files.append(file)
            else:
                self.passed_over.append(relative.as_posix())

    def count(self) -> int | None:
        """Returns the number of pictures, where it is known without reading them."""
        return len(self.files) if self._table is None else self._table.count()

    def identity(self) -> list[list[str]]:
        """Returns path below the folder and sha256 of every file."""
        # With the paths, not the contents alone: the name of a picture decides which rows refer to it.
        if self._table is not None:
            return [[file.name, sha256_file(file.path)] for file in self._table.files]
        return [[file.relative_to(self._home()).as_posix(), sha256_file(file)] for file in self.files]

    def store_rows(
        self, index: ImportIndex, source: str, licence: str, documents: Iterable[TableFile] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yields rows for the image store, each picture once; adds names and rejects to `index`.

        Args:
            index: Index of the import.
            source: Name of the corpus.
            licence: Licence of pictures that have none themselves.
            documents: PDF files, whose pages are pictures too.
        """
        written: set[bytes] = set()  # raw digests: half of the bytes of their hexadecimal texts
        pages = chain.from_iterable(pdf_pictures(file.path, file.name) for file in documents)
        for picture in chain(self._pictures(index), (PictureFile(name, name, data) for name, data in pages)):
            try:
                # Decoded to check it: every later step may rely on a picture of the store.
                decode_rgb(picture.data, picture.name)
                stored = ImageRecord.from_bytes(
                    picture.data, source=f"{source}:{picture.name}", licence=picture.licence or licence
                )
            except FoundryError as error:
                index.reject("not-a-picture", picture.name, picture.location, str(error))
                continue
            if not index.add_picture(picture.name, stored.id, picture.caption, stored.licence):
                detail = f"another picture is called {picture.name!r}"
                index.reject("same-picture-name-twice", picture.name, picture.location, detail)
            elif (digest := bytes.fromhex(stored.id)) not in written:
                written.add(digest)
                yield asdict(stored)

    def _home(self) -> Path:
        assert self.path is not None  # noqa: S101 - asked for only where there are files
        return self.path

    def _pictures(self, index: ImportIndex) -> Iterator[PictureFile]:
        for file in self.files:
            name = file.relative_to(self._home()).as_posix()
            if any("\udc80" <= char <= "\udcff" for char in name):  # how Python shows bytes that are no UTF-8
                index.reject("bad-file-name", ascii(name), ascii(name), "the file's name is not UTF-8")
                continue
            with file.open("rb") as handle:  # one byte over the limit is enough to be refused
                yield PictureFile(name, name, handle.read(MAX_BYTES + 1))
        for number, row in enumerate(self._table.rows() if self._table else ()):
            if isinstance(row, RowError):
                index.reject(row.reason, row.location, row.location, row.message)
                continue
            try:
                picture = _picture_of(row, number)
            except CellError as error:
                index.reject(error.reason, row.location, row.location, str(error))
                continue
            yield picture


def _picture_of(row: Row, number: int) -> PictureFile:
    """Returns the picture of a row of a table.

    Raises:
        CellError: The row holds no picture, or its name, caption or licence is no text.
    """
    values = row.values
    column = next((name for name in _PICTURE_COLUMNS if not is_missing(values.get(name))), None)
    cell = values[column] if column else None
    data = picture_cell(cell)
    if not isinstance(data, bytes):
        where = " or ".join(f"`{name}`" for name in _PICTURE_COLUMNS)
        raise CellError("no-picture-bytes", f"expected the bytes of a picture in {where}, found {data!r}")
    names = {name: values.get(name) for name in _NAME_COLUMNS}
    if isinstance(cell, dict):
        names["path"] = cell.get("path") if is_missing(names["path"]) else names["path"]
    present = [value for value in names.values() if not is_missing(value) and value != ""]
    name = id_cell(present[0]) if present else str(number)
    return PictureFile(
        name, row.location, data, plain_label(text_cell(values.get("caption"))), text_cell(values.get("licence"))
    )


def _is_table_folder(path: Path) -> bool:
    """Returns whether a folder holds tables and no pictures."""
    names = [file.name.lower() for file in path.rglob("*") if file.is_file()]
    pictures = any(name.endswith(tuple(PICTURE_SUFFIXES)) for name in names)
    return not pictures and any(name.endswith((".parquet", ".arrow")) for name in names)


def _open_pictures_table(path: Path) -> Table:
    if not path.exists():
        raise FoundryError(f"{path}: There is no such folder. Pictures are a folder of files, or a table with bytes.")
    table = open_table(path)
    for file in table.files:
        columns = file.columns()
        if columns is None or not set(columns) & set(_PICTURE_COLUMNS):
            shown = ", ".join(columns or ()) or "lines of JSON"
            raise FoundryError(
                f"{file.path}: no pictures here: expected a column `bytes` or `image`, found {shown}.",
                hint=f"Pictures are a folder of {', '.join(ALLOWED_FORMATS)} files, or a table with their bytes.",
            )
    return table
