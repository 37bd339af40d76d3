"""Suites over an imported corpus: its passages and the captions of its pictures.

Of the text of a passage only its length is kept, so that a corpus of a million passages fits in memory.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.parquet import UNREADABLE, shard_paths
from gme_validation.suites import TableSuite, between, holds, lengths, unique

_PASSAGES = ("id", "text", "entity_group", "licence", "source", "picture", "page")
_CAPTIONS = ("image", "caption", "entity_group", "licence")
_HINT = "Run `gme corpus import` again."


def imported_suites(corpus: Path) -> list[TableSuite]:
    """Returns the suites ``corpus.passages`` and, where there are captions, ``corpus.captions``.

    Raises:
        FoundryError: A shard is missing or corrupt, or a column is missing.
    """
    stored = frozenset(_read(corpus / "images", "images", ("id",))["id"])
    passages = _read(corpus, "passages", _PASSAGES)
    captions = _read(corpus, "captions", _CAPTIONS)
    return [_passages(passages, stored)] + ([_captions(captions, stored)] if len(captions) else [])


def _passages(frame: pd.DataFrame, stored: frozenset[str]) -> TableSuite:
    frame["pictures_stored"] = [
        (not picture or picture in stored) and (not page or page in stored)
        for picture, page in zip(frame["picture"], frame["page"], strict=True)
    ]
    return TableSuite(
        "corpus.passages",
        frame,
        (1, None),
        ("id", "characters", "entity_group", "licence", "source"),
        (
            unique("id"),
            between("characters", 1, None, "a passage has a text"),
            lengths("licence", 2, 200, "every passage has a licence"),
            holds("pictures_stored", "pictures and pages are in the picture store"),
        ),
    )


def _captions(frame: pd.DataFrame, stored: frozenset[str]) -> TableSuite:
    frame["picture_stored"] = frame["image"].isin(stored)
    return TableSuite(
        "corpus.captions",
        frame,
        (1, None),
        ("image", "caption", "licence"),
        (
            unique("image"),
            lengths("caption", 1, 10_000, "a caption says something"),
            lengths("licence", 2, 200, "every picture has a licence"),
            holds("picture_stored", "the picture is in the picture store"),
        ),
    )


def _read(folder: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Reads columns of all shards; ``text`` is replaced by its number of characters, as ``characters``."""
    parts = []
    for path in shard_paths(folder, name):
        try:
            for batch in pq.ParquetFile(path).iter_batches(columns=list(columns)):
                table = pa.Table.from_batches([batch])
                if "text" in columns:
                    table = table.append_column("characters", pc.utf8_length(table["text"])).drop_columns("text")
                parts.append(table.to_pandas())
        except UNREADABLE as error:
            raise FoundryError(f"{path}: damaged: {error}", hint=_HINT) from error
    names = [column if column != "text" else "characters" for column in columns]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
