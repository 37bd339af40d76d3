"""Folders of vectors as earlier versions wrote them: no shard notes the digest of its vectors, nor of its rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def forget_digests(folder: Path) -> None:
    """Make a folder one of an earlier version."""
    for path in folder.glob("ids-*.parquet"):
        table = pq.read_table(path)
        noted = {name: value for name, value in table.schema.metadata.items() if name not in (b"vectors", b"rows")}
        pq.write_table(table.drop_columns("content").replace_schema_metadata(noted), path)
