"""A corpus on disk: ``passages-*.parquet``, ``captions-*.parquet`` and ``images/images-*.parquet``.

The shape that every step reads, wherever the passages are from. Read row group by row group, never as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.parquet import read_shards, shard_paths, write_shards
from gme_data.structured import parse_json
from gme_synthesis.candidates import Candidate

IMAGES = "images"
_json_of = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for each call
_TEXTS = ("id", "text", "title", "kind", "domain", "entity_group", "picture", "page", "licence", "source")
_texts_of = attrgetter(*_TEXTS)
PASSAGES_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
        pa.field("facts", pa.string(), nullable=False),
    ]
)
"""`facts` is a JSON object, field -> value; an empty text means not known."""
CAPTIONS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("image", "caption", "entity_group", "licence")]
)


@dataclass(frozen=True, slots=True)
class Caption:
    """What a picture of the bank shows."""

    image: str
    caption: str
    entity_group: str
    licence: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """An opened corpus.

    Attributes:
        folder: Where it is.
        captions: Of the pictures that may stand for entities, by image id.
        images: All pictures.
    """

    folder: Path
    captions: Mapping[str, Caption]
    images: ImageStore

    def __len__(self) -> int:
        total = 0
        for path in shard_paths(self.folder, "passages"):
            with _whole(path):
                total += int(pq.ParquetFile(path).metadata.num_rows)
        return total

    def passages(self) -> Iterator[Candidate]:
        """All passages, in order.

        Raises:
            FoundryError: A shard is damaged.
        """
        for path in shard_paths(self.folder, "passages"):
            with _whole(path):
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=PASSAGES_SCHEMA.names).to_pylist()
                    yield from (_candidate(row, path) for row in rows)


def open_corpus(folder: Path) -> Corpus:
    """Open a corpus.

    Raises:
        FoundryError: There is none, or its captions are damaged.
    """
    if not list(folder.glob("passages-*.parquet")):
        raise FoundryError(f"{folder} is no corpus.", hint="Make one by `gme corpus import`.")
    rows = read_shards(folder, "captions", CAPTIONS_SCHEMA)
    captions = [Caption(*(row[name] for name in CAPTIONS_SCHEMA.names)) for row in rows]
    return Corpus(folder, {one.image: one for one in captions}, ImageStore([folder / IMAGES]))


def write_passages(folder: Path, passages: Iterable[Candidate]) -> None:
    """Write ``passages-*.parquet``."""
    write_shards(folder, "passages", map(_row, passages), PASSAGES_SCHEMA)


def write_captions(folder: Path, captions: Iterable[Caption]) -> None:
    """Write ``captions-*.parquet`` in the order given: by image id."""
    write_shards(folder, "captions", map(asdict, captions), CAPTIONS_SCHEMA)


def _row(passage: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(_TEXTS, _texts_of(passage), strict=True))
    row["aliases"] = passage.aliases
    row["facts"] = _json_of(passage.facts) if passage.facts else "{}"
    return row


def _candidate(row: dict[str, Any], path: Path) -> Candidate:
    for name in _TEXTS:
        if not isinstance(row[name], str):
            raise TypeError(f"column {name!r} of passage {row['id']!r} is no text")
    facts = parse_json(row["facts"], dict[str, str], where=f"{path}, facts of passage {row['id']!r}")
    return Candidate(**{**row, "aliases": tuple(map(str, row["aliases"])), "facts": facts})


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what a damaged shard raises into an error that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FoundryError(f"{path}: damaged: {error}", hint="Import the corpus again.") from error
