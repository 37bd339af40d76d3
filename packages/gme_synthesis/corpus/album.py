"""The pictures of a run: those of the corpus, those found or drawn, and the pages rendered, written out together.

Bytes are read one picture at a time; only ids, sizes and licences are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gme_data.images import ROW_GROUP_ROWS, SCHEMA, ImageStore
from gme_data.parquet import shard_paths, write_shards

_FACTS = [name for name in SCHEMA.names if name != "bytes"]


class Album:
    """Pictures of several folders of ``images-*.parquet``; of one that is in two, the first counts."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.store = ImageStore(folders)
        self._facts: dict[str, dict[str, Any]] = {}
        for path in (path for folder in folders for path in shard_paths(folder, "images")):
            for row in pq.read_table(path, columns=_FACTS).to_pylist():
                self._facts.setdefault(row["id"], row)

    @property
    def licences(self) -> dict[str, str]:
        """Licence by image id."""
        return {id_: row["licence"] for id_, row in self._facts.items()}

    @property
    def sources(self) -> dict[str, str]:
        """Where each picture is from, by image id."""
        return {id_: row["source"] for id_, row in self._facts.items()}

    def write(self, folder: Path, ids: Iterable[str]) -> None:
        """Write these pictures as ``images-*.parquet``, sorted by id."""
        write_shards(folder, "images", self._rows(sorted(set(ids))), SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    def _rows(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        return ({**self._facts[id_], "bytes": self.store.read(id_)} for id_ in ids)
