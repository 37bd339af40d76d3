"""The contents of a corpus's rows, for display: title, text and picture, read on demand from copies of its tables.

The tables themselves may be rewritten at any time for the next version of the corpus. The copies are files without a
name, which the system deletes when the process ends, however it ends. Rows are joined to vectors by their order, and
every id is compared. Of a row only its location is in memory. Not thread-safe. Knows the tables of a corpus; not their
vectors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.batching import batched
from gme_data.cells import CellError, picture_cell, text_cell
from gme_data.digests import sha256_bytes, sha256_file
from gme_data.errors import FoundryError
from gme_data.file_digests import file_version
from gme_data.images import Images
from gme_data.tables import Row, RowError, TableFile
from gme_embedder.corpus.rows import CONTENT, file_names, open_corpus, read_id
from gme_embedder.corpus.vector_folder import SkippedRow

_CACHED_CHUNKS = 32
_ROW_GROUP_ROWS = 1024
_BLOCK = 2**20
_HINT = "Give the tables that `gme embed` was given as --input, as they were then."
_COPY_SCHEMA = pa.schema(
    [
        ("title", pa.string()),
        ("text", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
)


class _RowLocation(NamedTuple):
    """Location of a row: number of the file, row group in it, and row in the row group."""

    file: int
    group: int
    row: int


class Catalogue:
    """The rows that have vectors, in the order of the vectors.

    Args:
        source: The corpus that was embedded: a table, or a folder of tables.
        ids: Ids of the vectors, in order.
        skipped: Rows of the corpus that have no vector, in order.
        images: Store of pictures that rows refer to by id.
        pictures: sha256 of each row's picture, where that is a file of its own.

    Attributes:
        digests: sha256 of the tables that were copied, by `file_names`.

    Raises:
        FoundryError: There is no corpus at `source`, or its rows are not those that were embedded; the message names
            the first row that differs.
    """

    def __init__(
        self,
        source: Path,
        ids: Iterable[str],
        skipped: Iterable[SkippedRow],
        images: Images | None = None,
        pictures: Sequence[str | None] = (),
    ) -> None:
        self.table = open_corpus(source)
        self._images, self._pictures = images, pictures
        copies = [_copy_table(file) for file in self.table.files]
        self._files = [pq.ParquetFile(copy) for copy, _ in copies]
        self.digests = dict(zip(file_names(self.table), (digest for _, digest in copies), strict=True))
        self._locations = self._join(ids, skipped)
        self._cache: OrderedDict[tuple[int, int, str], pa.ChunkedArray] = OrderedDict()

    def text(self, row: int) -> tuple[str | None, str | None]:
        """Return title and text of a row.

        Raises:
            FoundryError: The table can't be read any more.
        """
        return self._text(row, "title"), self._text(row, "text")

    def has_picture(self, row: int) -> bool:
        """Whether a row has a picture, which may still be missing or damaged. Raises as `text`."""
        return self._image(row) is not None

    def picture(self, row: int) -> bytes | None:
        """Return the encoded bytes of a row's picture; None for a row without one.

        Raises:
            FoundryError: There is no picture at the row's path or under its id, or it is not the one that was embedded;
                or as `text`.
        """
        image = self._image(row)
        if image is None or isinstance(image, bytes):
            return image
        if self._images is not None and image in self._images:
            return self._images.read(image)
        try:
            data = Path(image).read_bytes()
        except (OSError, ValueError) as error:  # a path may hold a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            raise FoundryError(
                f"The picture of row {row} can't be read: {reason}.",
                hint="Image ids are looked up in --images; paths count from the folder the server was started in.",
            ) from error
        if self._pictures and self._pictures[row] not in (None, sha256_bytes(data)):
            raise FoundryError(
                f"The picture of row {row} was changed since it was embedded.", hint="Run `gme embed --update`."
            )
        return data

    def _join(self, ids: Iterable[str], skipped: Iterable[SkippedRow]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the locations [n, 3] of the rows with vectors."""
        # Both sequences are in the order of the corpus, so one pass over its rows merges them.
        vectors, without_vector = iter(ids), iter(skipped)
        next_id, next_skipped = next(vectors, None), next(without_vector, None)
        locations: list[_RowLocation] = []
        for row, location in zip(self.table.rows(["id"]), self._all_locations(), strict=True):
            id_, _ = read_id(row)
            if id_ and id_ == next_id:
                locations.append(location)
                next_id = next(vectors, None)
            # A skipped row may have had no id.
            elif next_skipped is not None and next_skipped.id in ("", id_):
                next_skipped = next(without_vector, None)
            else:
                expected = "no further row" if next_id is None else f"the id '{next_id}'"
                raise FoundryError(
                    f"--source is another corpus: {row.location} has the id '{id_}', the vectors have {expected}.",
                    hint=_HINT,
                )
        if next_id is not None:
            raise FoundryError(f"--source has no row with the id '{next_id}', which the vectors have.", hint=_HINT)
        return np.array(locations, np.int32).reshape(-1, 3)

    def _all_locations(self) -> Iterator[_RowLocation]:
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                for row in range(file.metadata.row_group(group).num_rows):
                    yield _RowLocation(number, group, row)

    def _text(self, row: int, column: str) -> str | None:
        try:
            return text_cell(self._value(row, column)) or None
        except CellError as error:
            raise FoundryError(f"Row {row}: {column}: {error}.") from error

    def _image(self, row: int) -> str | bytes | None:
        try:
            return picture_cell(self._value(row, "image"))
        except CellError as error:
            raise FoundryError(f"Row {row}: image: {error}.") from error

    def _value(self, row: int, column: str) -> Any:  # noqa: ANN401 - what a cell holds
        file, group, row_in_group = self._locations[row].tolist()
        if column not in self._files[file].schema_arrow.names:
            return None
        key = (file, group, column)
        try:
            # Hits of one search often lie in the same row groups, which are decompressed as a whole.
            if key not in self._cache:
                self._cache[key] = self._files[file].read_row_group(group, columns=[column]).column(column)
                if len(self._cache) > _CACHED_CHUNKS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key][row_in_group].as_py()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FoundryError(
                f"{self.table.files[file].path} can't be read any more: {error}", hint="Start the server again."
            ) from error


def _copy_table(file: TableFile) -> tuple[IO[bytes], str]:
    """Copy a table to an unnamed Parquet file; returns the file and the table's sha256.

    Raises:
        FoundryError: The table changed while it was read.
    """
    copy = TemporaryFile(prefix="gme-serve-")  # noqa: SIM115 - stays open as long as the catalogue
    before = file_version(file.path)
    if file.format == "parquet":
        digest = _copy_bytes(file.path, copy)
    else:
        # Other formats can't be read row by row.
        _convert_to_parquet(file, copy)
        digest = sha256_file(file.path)
    # A table that was rewritten meanwhile could have given half of each version.
    if file_version(file.path) != before:
        raise FoundryError(f"{file.path} was changed while it was read.", hint="Try again when it is written.")
    copy.seek(0)
    return copy, digest


def _copy_bytes(path: Path, copy: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _convert_to_parquet(file: TableFile, copy: IO[bytes]) -> None:
    rows = map(_displayed_cells, file.rows(CONTENT))
    with pq.ParquetWriter(copy, _COPY_SCHEMA, compression="zstd") as writer:
        for batch in batched(rows, _ROW_GROUP_ROWS):
            writer.write_table(pa.Table.from_pylist(batch, _COPY_SCHEMA))


def _displayed_cells(row: Row | RowError) -> dict[str, Any]:
    """Title, text and picture of a row; empty for a row that was skipped, since it could not be read."""
    if isinstance(row, RowError):
        return {}
    try:
        image = picture_cell(row.values.get("image"))
        return {
            "title": text_cell(row.values.get("title")),
            "text": text_cell(row.values.get("text")),
            "image": {"bytes": image} if isinstance(image, bytes) else {"path": image},
        }
    except CellError:
        return {}
