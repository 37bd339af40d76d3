"""Inspects every stored picture: whether its id is the digest of its bytes, whether it decodes, its size and contrast.

A picture that can't be decoded gives a row with ``decodes`` false, so that the suite reports it with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import ALLOWED_FORMATS, SCHEMA, decode_rgb
from gme_data.parquet import UNREADABLE, shard_paths
from gme_data.progress import track
from gme_validation.config import ValidationConfig
from gme_validation.suites import TableSuite, between, holds, lengths, one_of, unique

_BATCH_ROWS = 128
_RERUN = "Delete its folder and run its step again."
_COLUMNS = [
    *("id", "format", "licence", "source", "width", "height"),
    *("size_as_recorded", "id_is_digest", "decodes", "std"),
]


def inspect_pictures(folder: Path) -> pd.DataFrame:
    """Returns one row per picture; pictures are decoded in small batches, to bound the memory.

    Columns: id, format, licence, source, width, height (as decoded, pixels; 0 if not decodable), size_as_recorded,
    id_is_digest, decodes, std (of the grey values, 0-255).

    Raises:
        FoundryError: A shard is missing or corrupt, or a column is missing or of another type.
    """
    files = {path: _open_shard(path) for path in shard_paths(folder, "images")}
    total = sum(file.metadata.num_rows for file in files.values())
    rows = [_inspect(row) for row in track(_rows(files), "decode pictures", total, "pictures")]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except UNREADABLE as error:
        raise _corrupt(path, error) from error
    # A column of nulls alone has no type of its own. It is accepted here, and its rows fail in the suite.
    types = {field.name: field.type for field in file.schema_arrow}
    wrong = [field.name for field in SCHEMA if types.get(field.name) not in (field.type, pa.null())]
    if wrong:
        raise FoundryError(f"{path}: column(s) missing or of another type: {', '.join(wrong)}.", hint=_RERUN)
    return file


def _corrupt(path: Path, error: Exception) -> FoundryError:
    return FoundryError(f"Corrupt parquet file: {path}: {error}", hint=_RERUN)


def _rows(files: Mapping[Path, pq.ParquetFile]) -> Iterator[dict[str, Any]]:
    for path, file in files.items():
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
        except UNREADABLE as error:
            raise _corrupt(path, error) from error


def _inspect(row: dict[str, Any]) -> dict[str, Any]:
    size, std, decodes = (0, 0), 0.0, True
    data = row["bytes"] or b""
    try:
        picture = decode_rgb(data, str(row["id"]))
        size, std = picture.size, float(np.asarray(picture.convert("L"), dtype=np.float32).std())
    except FoundryError:
        decodes = False
    return {
        **{name: row[name] for name in ("id", "format", "licence", "source")},
        "width": size[0],
        "height": size[1],
        "size_as_recorded": size == (row["width"], row["height"]),
        "id_is_digest": sha256_bytes(data) == row["id"],
        "decodes": decodes,
        "std": std,
    }


def picture_suite(frame: pd.DataFrame, config: ValidationConfig) -> TableSuite:
    """Returns the suite over the rows of `inspect_pictures`."""
    sides = (config.min_picture_side, config.max_picture_side)
    return TableSuite(
        "corpus.images",
        frame,
        (1, None),
        ("id", "format", "licence", "source", "width", "height"),
        (
            unique("id"),
            holds("id_is_digest", "a picture's id is the sha256 of its bytes"),
            holds("decodes", "every picture decodes to its last pixel"),
            holds("size_as_recorded", "width and height are those of the table"),
            one_of("format", ALLOWED_FORMATS, "formats that are decoded"),
            lengths("licence", 2, 200, "every picture has a licence"),
            between("width", *sides, "width in pixels"),
            between("height", *sides, "height in pixels"),
            between("std", config.min_picture_std, None, "no blank picture"),
        ),
    )
