"""The pictures of a run: those of the corpus, those found or drawn, and the pages rendered, written out together.

Bytes are read one picture at a time; what is known of each is in the spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from gme_data.images import ROW_GROUP_ROWS, SCHEMA, ImageStore, decode_rgb
from gme_data.parquet import shard_paths, write_shards
from gme_synthesis.corpus.spool import Spool

_FACTS = [name for name in SCHEMA.names if name != "bytes"]


class Album:
    """Pictures of several folders of ``images-*.parquet`` and of a spool; of one that is in two, the first counts.

    Args:
        folders: In this order, and before the pages of the spool.
        spool: Takes note of the pictures of the folders.
    """

    def __init__(self, folders: Sequence[Path], spool: Spool) -> None:
        self._store, self._spool = ImageStore(folders), spool
        for path in (path for folder in folders for path in shard_paths(folder, "images")):
            for batch in pq.ParquetFile(path).iter_batches(columns=_FACTS):
                for row in batch.to_pylist():
                    spool.know(row)

    def licence(self, id_: str) -> str:
        """Licence of a picture."""
        return str(self._spool.picture(id_)["licence"])

    def source(self, id_: str) -> str:
        """Where a picture is from."""
        return str(self._spool.picture(id_)["source"])

    def load(self, id_: str) -> Image.Image:
        """A picture as RGB."""
        return decode_rgb(self._row(id_)["bytes"], id_)

    def write(self, folder: Path, ids: Iterable[str]) -> None:
        """Write these pictures as ``images-*.parquet``, in the order given."""
        write_shards(folder, "images", self._rows(ids), SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    def _rows(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        return map(self._row, ids)

    def _row(self, id_: str) -> dict[str, Any]:
        row = self._spool.picture(id_)
        return {**row, "bytes": row["bytes"] or self._store.read(id_)}
