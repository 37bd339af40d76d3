"""What the rows of a corpus hold, for showing: title, text and picture by id, read from the parquet when asked for.

Only ids are held in memory. For one thread at a time. Knows the files of a corpus; not their vectors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_embedder.bulk import corpus_files

_CACHED_CHUNKS = 32


class Catalogue:
    """Rows by id.

    Args:
        source: The corpus that was embedded: a parquet file, or a folder of them.
        images: Where image ids are looked up.

    Raises:
        FoundryError: No corpus at `source`.
    """

    def __init__(self, source: Path, images: ImageStore | None = None) -> None:
        self._images = images
        self._files = [pq.ParquetFile(path) for path in corpus_files(source)]
        self._places: dict[str, tuple[int, int, int]] = {}
        self._cache: OrderedDict[tuple[int, int, str], pa.ChunkedArray] = OrderedDict()
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
                for row, id_ in enumerate(ids):
                    self._places.setdefault(str(id_), (number, group, row))

    def require(self, ids: Iterable[str]) -> None:
        """Check that all `ids` are here.

        Raises:
            FoundryError: One is not.
        """
        missing = next((id_ for id_ in ids if id_ not in self._places), None)
        if missing is not None:
            raise FoundryError(
                f"--source has no row with the id '{missing}', which the vectors have.",
                hint="Give the parquet that `gme embed` was given as --input.",
            )

    def text(self, id_: str) -> tuple[str | None, str | None]:
        """Title and text of a row."""
        return self._value(id_, "title"), self._value(id_, "text")

    def has_picture(self, id_: str) -> bool:
        """Whether a row has a picture; it may still be missing or damaged."""
        return self._value(id_, "image") is not None

    def picture(self, id_: str) -> bytes | None:
        """Encoded bytes of a row's picture; None where it has none.

        Raises:
            FoundryError: The row's path or image id leads nowhere.
        """
        image = self._value(id_, "image")
        if image is None or isinstance(image, bytes):
            return image
        if self._images is not None and image in self._images:
            return self._images.read(image)
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise FoundryError(
                f"The picture of '{id_}' can't be read: {error.strerror}.",
                hint="Image ids are looked up in --images; paths count from the folder the server was started in.",
            ) from error

    def _value(self, id_: str, column: str) -> Any:  # noqa: ANN401 - text or bytes, by column
        file, group, row = self._places[id_]
        if column not in self._files[file].schema_arrow.names:
            return None
        key = (file, group, column)
        if key not in self._cache:
            self._cache[key] = self._files[file].read_row_group(group, columns=[column]).column(column)
            if len(self._cache) > _CACHED_CHUNKS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key][row].as_py()
