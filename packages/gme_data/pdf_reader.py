"""The process that reads a PDF: ``python -m gme_data.pdf_reader FILE FIRST PICTURES`` writes its pages to stdout.

Each page is seven fields with their lengths before them: those of `gme_data.tables.pdf.PdfPage`.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pypdfium2 as pdfium
from pypdfium2 import raw

from gme_data.images import encode_png
from gme_data.process import die_with_parent

MAX_PAGES = 20_000
MAX_CHARACTERS = 1_000_000
MAX_OBJECTS = 500_000
MAX_PIXELS = 64 * 2**20
"""A page with a larger picture in it is not read."""
_LONGER_SIDE = 1024
"""The longer side of a rendered page in pixels."""
_MIN_SHORTER_SIDE = 32
_MEMORY = 4 * 2**30
_SECONDS_A_PAGE = 30
_MAX_HEADINGS = 20_000
_MAX_TITLE = 300
_PASSWORD, _SECURITY = 4, 5
_HYPHEN = re.compile(r"[\ufffe\x02]\s*")
"""PDFium's mark of a word that continues in the next line."""


def main() -> None:
    """Reads from the page that the command line names to the end."""
    path, first, pictures = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
    die_with_parent(os.getppid())
    # A page may need any amount of memory and time: both limits end this process, which costs that page alone.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.alarm(_SECONDS_A_PAGE)
    try:
        document = pdfium.PdfDocument(path)
        pages = len(document)
    except pdfium.PdfiumError as error:
        locked = error.err_code in (_PASSWORD, _SECURITY)
        _write(0, 0, "encrypted-pdf: it needs a password" if locked else f"damaged-pdf: {error}")
        return
    if not 0 < pages <= MAX_PAGES:
        _write(0, 0, f"damaged-pdf: {pages} pages" if not pages else f"too-large: {pages:,} pages of {MAX_PAGES:,}")
        return
    title, headings = _title(document), dict(_headings(document, pages))
    heading = next((headings[at] for at in range(first - 1, -1, -1) if at in headings), "")
    for number in range(first, pages + 1):
        signal.alarm(_SECONDS_A_PAGE)  # its default action ends the process
        heading = headings.get(number - 1, heading)
        problem, text, picture = _page(document, number - 1, pictures=pictures)
        _write(pages, number, problem, heading or title, heading, text, picture)


def _page(document: pdfium.PdfDocument, at: int, *, pictures: bool) -> tuple[str, str, bytes]:
    """Returns the problem, text and picture of a page."""
    try:
        page = document[at]
        if problem := _too_large(page):
            return problem, "", b""
        text = page.get_textpage().get_text_bounded()
        if len(text) > MAX_CHARACTERS:
            return f"too-large: a text of {len(text):,} characters", "", b""
        picture = _picture(page) if pictures else b""
    except (pdfium.PdfiumError, MemoryError, ValueError) as error:
        return f"damaged-pdf: {error}", "", b""
    joined = _HYPHEN.sub("", text).replace("\r\n", "\n")
    return "", joined.encode("utf-8", "replace").decode(), picture


def _too_large(page: pdfium.PdfPage) -> str:
    """Returns why a page is not read, before anything of it is decoded; empty if it is."""
    width, height = page.get_size()
    if not min(width, height) * _LONGER_SIDE >= _MIN_SHORTER_SIDE * max(width, height) > 0:
        return f"too-large: a page of {width:.4g} x {height:.4g} points"
    if (objects := raw.FPDFPage_CountObjects(page)) > MAX_OBJECTS:
        return f"too-large: {objects:,} objects on a page"
    for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
        across, down = image.get_px_size()
        if across * down > MAX_PIXELS:
            return f"too-large: a picture of {across} x {down} pixels on the page"
    return ""


def _picture(page: pdfium.PdfPage) -> bytes:
    return encode_png(page.render(scale=_LONGER_SIDE / max(page.get_size())).to_pil().convert("RGB"))


def _title(document: pdfium.PdfDocument) -> str:
    return _plain(document.get_metadata_value("Title"))


def _headings(document: pdfium.PdfDocument, pages: int) -> Iterator[tuple[int, str]]:
    """Yields the index of a page and its first heading in the outline; headings without a page are left out."""
    seen: set[int] = set()
    for bookmark in islice(document.get_toc(), _MAX_HEADINGS):
        destination = bookmark.get_dest()
        at = destination.get_index() if destination else None
        title = _plain(bookmark.get_title())
        if at is not None and 0 <= at < pages and title and at not in seen:
            seen.add(at)
            yield at, title


def _plain(text: str) -> str:
    valid = text.encode("utf-8", "replace").decode()
    return " ".join(valid.replace("\x00", " ").split())[:_MAX_TITLE]


def _write(last: int, number: int, *fields: str | bytes) -> None:
    """Writes a page to stdout; fields that are left out are empty."""
    written = [str(last), str(number), *fields, *("" for _ in range(5 - len(fields)))]
    for field in written:
        data = field if isinstance(field, bytes) else field.encode()
        sys.stdout.buffer.write(struct.pack("!I", len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
