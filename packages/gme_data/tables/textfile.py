"""Lines of a text file, plain or gzipped, decoded strictly: what is not in its encoding is an error."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from gme_data.errors import FoundryError

MAX_LINE_CHARACTERS = 64 * 2**20
_UTF_8 = "utf-8-sig"
"""UTF-8 without the byte order mark that Windows programs write before the text."""
_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class Lines:
    """Iterates over ``(number, line)``, from 1, line ends included. Use as a context manager; iteration goes on.

    Args:
        path: The file; ``.gz`` is unpacked on the way.
        encoding: Its encoding; the default is UTF-8, with or without its mark.

    Raises:
        FoundryError: The file can't be read, is damaged, is not in `encoding`, or holds a line of more than
            `MAX_LINE_CHARACTERS`.
    """

    def __init__(self, path: Path, encoding: str) -> None:
        self._path = path
        self._encoding = _UTF_8 if codecs.lookup(encoding).name == "utf-8" else encoding
        self._number = 0

    def __enter__(self) -> Self:
        try:
            # Only line feeds end a line: inside a JSON string or a field, other separators are characters.
            self._text = io.TextIOWrapper(_open(self._path), encoding=self._encoding, errors="strict", newline="\n")
        except OSError as error:
            raise FoundryError(f"{self._path} can't be read: {error.strerror or error}.") from error
        self._read = partial(self._text.readline, MAX_LINE_CHARACTERS + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        try:
            line = self._read()
        except UnicodeDecodeError as error:
            raise self._undecodable() from error
        except (OSError, EOFError, zlib.error) as error:  # gzip's own error is an OSError
            raise FoundryError(
                f"{self._path}, after line {self._number}: damaged: {error}.", hint="Is the file whole?"
            ) from error
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) > MAX_LINE_CHARACTERS:
            raise FoundryError(
                f"{self._path}, line {self._number}: more than {MAX_LINE_CHARACTERS:,} characters in one line.",
                hint="Is this a table of one row a line?",
            )
        return self._number, line

    def _undecodable(self) -> FoundryError:
        """Returns an error with the first line that is not in the encoding, unknown to the decoder of blocks."""
        if self._encoding != _UTF_8:
            return FoundryError(f"{self._path}: not in the encoding {self._encoding}.", hint=_HINT)
        with suppress(OSError, EOFError, zlib.error), _open(self._path) as handle:  # packed, and damaged further on
            for number, line in enumerate(handle, 1):
                mark = _MARKS.get(line[:2]) if number == 1 else None
                if mark:
                    return FoundryError(f"{self._path}: in {mark}, not in UTF-8.", hint=_HINT)
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    what = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                    return FoundryError(f"{self._path}, line {number}: not UTF-8: {what}.", hint=_HINT)
        return FoundryError(f"{self._path}: not UTF-8.", hint=_HINT)


_HINT = (
    "Save it as UTF-8 (`iconv -f CP1252 -t UTF-8 FILE`, or Excel's 'CSV UTF-8'); an import also takes "
    "`corpus: {encoding: cp1252}` in its config."
)


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))  # the same methods under another name
    return path.open("rb")
