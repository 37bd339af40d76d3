"""The pictures of a run: those of the corpus, those searched for or generated, and the rendered pages.

The example buffer holds their metadata; encoded bytes are read one picture at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from gme_data.images import ROW_GROUP_ROWS, SCHEMA, ImageStore, decode_rgb
from gme_data.parquet import shard_paths, write_shards
from gme_synthesis.corpus.example_buffer import ExampleBuffer

_METADATA = [name for name in SCHEMA.names if name != "bytes"]


class PictureCollection:
    """Pictures of several folders of ``images-*.parquet`` and of a buffer; of two with one id, the first counts.

    Args:
        folders: Folders in order of precedence, before the rendered pages of the buffer.
        buffer: Gets the metadata of the folders' pictures.
    """

    def __init__(self, folders: Sequence[Path], buffer: ExampleBuffer) -> None:
        self._store, self._buffer = ImageStore(folders), buffer
        for path in (path for folder in folders for path in shard_paths(folder, "images")):
            # Without the bytes: all pictures together may be larger than memory.
            for batch in pq.ParquetFile(path).iter_batches(columns=_METADATA):
                for row in batch.to_pylist():
                    buffer.add_picture(row)

    def licence(self, id_: str) -> str:
        """Returns the licence of a picture."""
        return str(self._buffer.picture(id_)["licence"])

    def source(self, id_: str) -> str:
        """Returns where a picture is from."""
        return str(self._buffer.picture(id_)["source"])

    def load(self, id_: str) -> Image.Image:
        """Returns a picture, decoded to RGB."""
        return decode_rgb(self._row(id_)["bytes"], id_)

    def write(self, folder: Path, ids: Iterable[str]) -> None:
        """Writes these pictures as ``images-*.parquet``, in the order of `ids`."""
        write_shards(folder, "images", map(self._row, ids), SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    def _row(self, id_: str) -> dict[str, Any]:
        row = self._buffer.picture(id_)
        # Only rendered pages have their bytes in the buffer: they lie in no folder.
        return {**row, "bytes": row["bytes"] or self._store.read(id_)}
