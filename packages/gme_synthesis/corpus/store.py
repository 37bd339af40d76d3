"""A corpus as every step reads it, and the Parquet files of an imported one: passages, captions and images.

Passages are read one row group at a time, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.images import Images, ImageStore
from gme_data.parquet import read_shards, shard_paths, write_shards
from gme_data.structured import parse_json
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.recipes import RECIPES, Recipe

IMAGES = "images"
_encode_json = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` makes an encoder for each call
_TEXT_COLUMNS = ("id", "text", "title", "kind", "domain", "entity_group", "picture", "page", "licence", "source")
_texts_of = attrgetter(*_TEXT_COLUMNS)
PASSAGES_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXT_COLUMNS),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
        pa.field("facts", pa.string(), nullable=False),
    ]
)
"""The columns of passages; `facts` is a JSON object, field -> value, and an empty text means not known."""
CAPTIONS_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("image", "caption", "entity_group", "licence")]
)


@dataclass(frozen=True, slots=True)
class Caption:
    """The caption of a picture that may stand for an entity.

    Attributes:
        image: Image id.
        caption: What the picture shows, in words.
        entity_group: The entity that it shows.
        licence: SPDX expression of the picture.
    """

    image: str
    caption: str
    entity_group: str
    licence: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """An opened corpus.

    Attributes:
        size: Number of passages.
        passages: Yields all passages, in order. Raises `FoundryError` where a shard is damaged.
        images: All pictures.
        captions: Captions of the pictures that may stand for entities, by image id.
        recipes: How questions become examples.
        wordings: Templates of questions by field, for a rule-based writer.
        examples: Training examples that the corpus supplies, beside the generated ones.
        tasks: Folder of evaluation tasks that the corpus supplies; then all its passages are for training. None: tasks
            are made of some of its entities, which are held out.
    """

    size: int
    passages: Callable[[], Iterator[Candidate]]
    images: Images
    captions: Mapping[str, Caption]
    recipes: Sequence[Recipe] = RECIPES
    wordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    tasks: Path | None = None

    def __len__(self) -> int:
        return self.size


def open_imported(folder: Path) -> Corpus:
    """Opens a corpus that `gme corpus import` wrote.

    Raises:
        FoundryError: There is no corpus, or a shard is damaged.
    """
    if not list(folder.glob("passages-*.parquet")):
        raise FoundryError(f"{folder} is no corpus.", hint="Make one by `gme corpus import`.")
    captions = {row["image"]: Caption(**row) for row in read_shards(folder, "captions", CAPTIONS_SCHEMA)}
    shards = shard_paths(folder, "passages")
    return Corpus(
        # From the footers of the files: opening a corpus reads no passage.
        size=sum(map(_count_rows, shards)),
        passages=partial(_read_passages, shards),
        images=ImageStore([folder / IMAGES]),
        captions=captions,
    )


def _count_rows(shard: Path) -> int:
    with _name_damaged(shard):
        return int(pq.ParquetFile(shard).metadata.num_rows)


def _read_passages(shards: Iterable[Path]) -> Iterator[Candidate]:
    for path in shards:
        with _name_damaged(path):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=PASSAGES_SCHEMA.names).to_pylist()
                yield from (_candidate(row, path) for row in rows)


def write_passages(folder: Path, passages: Iterable[Candidate]) -> None:
    """Writes ``passages-*.parquet``."""
    write_shards(folder, "passages", map(_row, passages), PASSAGES_SCHEMA)


def write_captions(folder: Path, captions: Iterable[Caption]) -> None:
    """Writes ``captions-*.parquet``; `captions` are sorted by image id."""
    write_shards(folder, "captions", map(asdict, captions), CAPTIONS_SCHEMA)


def _row(passage: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(_TEXT_COLUMNS, _texts_of(passage), strict=True))
    row["aliases"] = passage.aliases
    row["facts"] = _encode_json(passage.facts) if passage.facts else "{}"
    return row


def _candidate(row: dict[str, Any], path: Path) -> Candidate:
    # The types of a Parquet file are its own: a damaged or foreign one may hold others than the schema says.
    for name in _TEXT_COLUMNS:
        if not isinstance(row[name], str):
            raise TypeError(f"column {name!r} of passage {row['id']!r} is no text")
    facts = parse_json(row["facts"], dict[str, str], where=f"{path}, facts of passage {row['id']!r}")
    return Candidate(**{**row, "aliases": tuple(map(str, row["aliases"])), "facts": facts})


@contextmanager
def _name_damaged(path: Path) -> Iterator[None]:
    """Turns the exceptions of a damaged shard into a `FoundryError` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise FoundryError(f"{path}: damaged: {error}", hint="Import the corpus again.") from error
