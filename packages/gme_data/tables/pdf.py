"""PDF files as tables: a row a page, with its text, its title and the name of its picture.

PDFium, which reads them, is a large program in C++, and the files are untrusted: it runs in a separate process, with
bounds on memory and on the time of a page (`gme_data.pdf_reader`). A page at which it ends costs that page.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from gme_data.errors import FoundryError
from gme_data.tables.rows import Row, RowError

COLUMNS = ("id", "title", "text", "page", "entity_group")
"""The columns of a page: ``page`` names its picture, ``entity_group`` is its section of the outline."""
MAX_FILE_BYTES = 2**30
_SIZE = struct.Struct("!I")
_MAX_FIELD = 64 * 2**20
_ENDED = "damaged-pdf: the reader of PDF ended at this page: too much memory or time, or a defect"


class PdfPage(NamedTuple):
    """What the reader says of a page.

    Attributes:
        pages: How many the file has; 0 if it can't be opened.
        number: From 1; 0 for what is true of the whole file.
        problem: Reason and message for a page that can't be read, divided by a colon; empty if it can.
        title: The heading of the outline that it stands under, else the document's title; empty if there is neither.
        heading: That heading; empty if the document has no outline.
        text: The page's text.
        picture: PNG of the page; empty if none was asked for.
    """

    pages: int
    number: int
    problem: str
    title: str = ""
    heading: str = ""
    text: str = ""
    picture: bytes = b""


def pdf_rows(path: Path, name: str, columns: Sequence[str] | None) -> Iterator[Row | RowError]:
    """Yields the rows of a file; an encrypted or damaged one is a single `RowError`.

    Args:
        path: The file.
        name: What rows call it.
        columns: Those to hand over; None hands over all.

    Raises:
        FoundryError: The package that reads PDF is not installed.
    """
    name = _valid_utf8(name)
    for page in pdf_pages(path, pictures=False):
        if page.problem:
            reason, _, message = page.problem.partition(": ")
            yield RowError(name, "page", page.number, reason, message)
            continue
        id_ = page_name(name, page.number)
        title = page.title or Path(name).stem
        group = f"{name}: {page.heading}".casefold() if page.heading else id_
        values = dict(zip(COLUMNS, (id_, title, page.text, id_, group), strict=True))
        selected = {column: value for column, value in values.items() if columns is None or column in columns}
        yield Row(name, "page", page.number, selected)


def pdf_pictures(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yields the name and PNG of every page that can be read. Raises as `pdf_rows`."""
    name = _valid_utf8(name)
    for page in pdf_pages(path, pictures=True):
        if not page.problem:
            yield page_name(name, page.number), page.picture


def require_reader(path: Path) -> None:
    """Checks that the package that reads PDF is installed.

    Raises:
        FoundryError: It is not.
    """
    if importlib.util.find_spec("pypdfium2") is None:
        raise FoundryError(
            f"{path}: PDF files need the package pypdfium2.",
            hint="pip install pypdfium2; the extra `synthesis` has it.",
        )


def page_name(name: str, number: int) -> str:
    """Returns the name of a page's picture, by which PDF viewers open it: ``manual.pdf#page=3``."""
    return f"{name}#page={number}"


def pdf_pages(path: Path, *, pictures: bool) -> Iterator[PdfPage]:
    """Yields the pages in order, with those that can't be read. Raises as `pdf_rows`."""
    require_reader(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        problem = f"too-large: {path.stat().st_size:,} bytes, more than the allowed {MAX_FILE_BYTES:,}"
        yield PdfPage(0, 0, problem)
        return
    # A page at which the reader ends is reported as damaged, and a new reader goes on behind it.
    read, pages = 0, 1
    while read < pages:
        for page in _read(path, read + 1, pictures=pictures):
            read, pages = page.number, page.pages
            yield page
        if read < pages:
            read += 1
            yield PdfPage(pages, read, _ENDED)


def _read(path: Path, first: int, *, pictures: bool) -> Iterator[PdfPage]:
    """Yields the pages from `first` on, until the reader ends."""
    command = [sys.executable, "-m", "gme_data.pdf_reader", str(path), str(first), str(int(pictures))]
    # The reader must find this package, which may be on the path of this process alone.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as reader:
        assert reader.stdout is not None  # noqa: S101 - it is a pipe
        try:
            while (fields := _fields(reader.stdout)) is not None:
                pages, number, *texts, picture = fields
                problem, title, heading, text = (field.decode() for field in texts)
                yield PdfPage(int(pages), int(number), problem, title, heading, text, picture)
        finally:
            reader.kill()


def _fields(stream: IO[bytes]) -> list[bytes] | None:
    """Returns the fields of a page, or None where the stream ends."""
    fields = []
    for _ in PdfPage._fields:
        size = stream.read(_SIZE.size)
        if len(size) < _SIZE.size or (length := _SIZE.unpack(size)[0]) > _MAX_FIELD:
            return None
        field = stream.read(length)
        if len(field) < length:
            return None
        fields.append(field)
    return fields


def _valid_utf8(name: str) -> str:
    """Returns a file's name, whose bytes may be no UTF-8, as a text that can be written."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
