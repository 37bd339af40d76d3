"""The index of a training set: built once, mapped into memory by every rank.

Examples are copied into one Arrow file, every distinct item gets a number, and the lookups of training (the positives
of a query, the examples of a source or of a batch key) are sorted beforehand. Items with equal text and picture are one
item, so that nothing is encoded twice in a batch and no copy of a positive is taken for a negative. Knows files and
numbers; not batches.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict

from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA
from gme_data.journal import atomic_write, fsync_tree
from gme_data.parquet import UNREADABLE, shard_paths
from gme_data.progress import Progress
from gme_data.structured import StructureError, read_json

INDEX_FILE, EXAMPLES_FILE = "index.json", "examples.arrow"
VERSION = 1
"""The version of the format; an index of another version is built again."""
_ROWS_AT_ONCE = 16_384
"""The number of examples that are copied at once."""
_DIGEST_BYTES = 16
"""Long enough that of 100 million items two have the same digest with a probability of 1e-23."""
Ints = NDArray[np.int64]
ShardStamp = tuple[str, int, int]
"""The name of a shard, its size, and the time of its last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Examples of one source and task type, all with hard negatives or all without.

    Attributes:
        source: Their source.
        task_type: Their task type.
        with_negatives: Whether they have hard negatives.
        first: Their first position among the rows ordered by stratum.
        last: One after their last position.
    """

    source: str
    task_type: str
    with_negatives: bool
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """The shards that an index was built from, and the strata of their examples, ordered."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: int
    shards: tuple[ShardStamp, ...]
    strata: tuple[Stratum, ...]


def ensure_index(examples: Sequence[Path], folder: Path, pictures: Container[str]) -> None:
    """Builds the index of the shards in `examples`, in this order, unless `folder` holds it already.

    Args:
        examples: Folders of ``examples-*.parquet``.
        folder: The folder of the index; on disk it is about as large as the shards without compression.
        pictures: The ids of all pictures.

    Raises:
        FoundryError: Shards missing, damaged, or without a column; an example with an unknown picture.
    """
    paths = [path for shards in examples for path in shard_paths(shards, "examples")]
    stamps = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    try:
        present = read_index_manifest(folder)
        if (present.version, present.shards) == (VERSION, stamps):
            return
    except (FileNotFoundError, StructureError):
        pass  # A damaged index is built again, as one that was never finished.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest = IndexManifest(VERSION, stamps, _build(paths, folder, pictures))
    fsync_tree(folder)
    # Last: a folder without the manifest is no index.
    atomic_write(folder / INDEX_FILE, json.dumps(asdict(manifest)).encode())


def read_index_manifest(folder: Path) -> IndexManifest:
    """Reads the manifest of an index.

    Raises:
        StructureError: The manifest is damaged.
        FileNotFoundError: The index was never finished.
    """
    return read_json(folder / INDEX_FILE, IndexManifest, max_bytes=2**30, hint=f"Delete {folder}; it is built again.")


def save_arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    """Writes each array to a file that `load_array` maps."""
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def load_array(folder: Path, name: str) -> Ints:
    """Maps an array of `save_arrays` into memory, so that only the parts that are used are read.

    Raises:
        FoundryError: The file is damaged.
    """
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError) as error:
        raise FoundryError(f"{path}: damaged: {error}", hint=f"Delete {folder}; it is built again.") from error


def write_lookups(
    folder: Path, starts: Ints, items: Ints, group: Ints, key: Ints, strata_of: Ints
) -> list[tuple[int, int, int]]:
    """Writes the sorted arrays that training looks up.

    Args:
        folder: The folder of the index.
        starts: The position in `items` at which those of each example begin, int64 [n + 1].
        items: For each example the numbers of its query, its positive and its negatives, int64 [m].
        group: The entity group of each example, int64 [n].
        key: The batch key of each example, int64 [n].
        strata_of: The stratum of each example, int64 [n].

    Returns:
        For each stratum that has examples, its number, and its first and one after its last position among the rows
        ordered by stratum.
    """
    query, positive = items[starts[:-1]], items[starts[:-1] + 1]
    firsts = np.unique(items, return_index=True)[1]
    fact = group * (key.max() + 1 if len(key) else 1) + key  # one number for each pair (group, key)
    sorted_by = {"query": query, "fact": fact, "key": key}
    orders = {name: np.argsort(values, kind="stable") for name, values in sorted_by.items()}
    by_stratum = np.argsort(strata_of, kind="stable")
    save_arrays(
        folder,
        starts=starts,
        items=items,
        firsts=firsts,
        query=query,
        positive=positive,
        key=key,
        fact=fact,
        by_stratum=by_stratum,
        stratum=strata_of,
        **{f"by_{name}": order for name, order in orders.items()},
        query_sorted=query[orders["query"]],
        fact_sorted=fact[orders["fact"]],
        key_sorted=key[orders["key"]],
    )
    numbers, firsts, counts = np.unique(strata_of[by_stratum], return_index=True, return_counts=True)
    return [
        (number, first, first + count)
        for number, first, count in zip(numbers.tolist(), firsts.tolist(), counts.tolist(), strict=True)
    ]


def _build(paths: list[Path], folder: Path, pictures: Container[str]) -> tuple[Stratum, ...]:
    """Copies the examples and numbers their items; returns the strata."""
    digests = _ExampleDigests()
    files = [_open(path) for path in paths]
    total = sum(file.metadata.num_rows for file in files)
    with (
        pa.OSFile(str(folder / EXAMPLES_FILE), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
        Progress("index", total, "examples") as progress,
    ):
        for path, file in zip(paths, files, strict=True):
            for batch in _record_batches(path, file):
                writer.write_batch(batch)
                for row in batch.select(_NUMBERED).to_pylist():
                    digests.add(row, pictures)
                progress.advance(batch.num_rows)
    starts = np.cumsum(np.array([0, *digests.item_counts]), dtype=np.int64)
    # Sorted, so that the strata of a source, and of a task type within it, are neighbours.
    strata = sorted(digests.strata)
    rank = np.array([strata.index(stratum) for stratum in digests.strata], dtype=np.int64)
    items, groups, keys = (_number(data) for data in (digests.items, digests.groups, digests.keys))
    spans = write_lookups(folder, starts, items, groups, keys, rank[np.array(digests.stratum, dtype=np.int64)])
    return tuple(Stratum(*strata[number], first, last) for number, first, last in spans)


_NUMBERED = ["id", "query", "positive", "negatives", "entity_group", "source", "batch_key", "task_type"]
"""The columns that the index numbers; the others are only copied."""


class _ExampleDigests:
    """Digests of what names the examples, concatenated, and the stratum of each.

    Attributes:
        items: Digests of each example's query, positive and negatives.
        groups: Digests of each example's entity group.
        keys: Digests of each example's batch key.
        item_counts: The number of items of each example.
        strata: The number of each stratum (source, task type, whether with negatives), in order of appearance.
        stratum: The number of each example's stratum.
    """

    def __init__(self) -> None:
        # Packed bytes and not Python objects: an item takes 16 bytes.
        self.items, self.groups, self.keys = bytearray(), bytearray(), bytearray()
        self.item_counts = array("q")
        self.strata: dict[tuple[str, str, bool], int] = {}
        self.stratum = array("q")

    def add(self, row: dict[str, Any], pictures: Container[str]) -> None:
        """Adds an example.

        Raises:
            FoundryError: It has a picture that is not among `pictures`.
        """
        items = (row["query"], row["positive"], *row["negatives"])
        for item in items:
            if item["image"] is not None and item["image"] not in pictures:
                raise FoundryError(
                    f"Example '{row['id']}' of source '{row['source']}' has a picture that no picture shard holds: "
                    f"{item['image']}.",
                    hint="Write it with `write_images`, or leave the example out.",
                )
        self.items += b"".join([_digest(item["image"], item["text"]) for item in items])
        self.groups += _digest(row["entity_group"])
        self.keys += _digest(row["source"], row["batch_key"])
        self.item_counts.append(len(items))
        stratum = row["source"], row["task_type"], bool(row["negatives"])
        self.stratum.append(self.strata.setdefault(stratum, len(self.strata)))


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except UNREADABLE as error:
        raise _corrupt(path, error) from error
    missing = sorted(set(SCHEMA.names) - set(file.schema_arrow.names))
    if missing:
        raise FoundryError(f"{path}: column(s) missing: {', '.join(missing)}.", hint="Run the step that makes it.")
    return file


def _record_batches(path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=SCHEMA.names):
            yield pa.RecordBatch.from_arrays([batch.column(name) for name in SCHEMA.names], schema=SCHEMA)
    except UNREADABLE as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> FoundryError:
    return FoundryError(f"Corrupt parquet file: {path}: {error}", hint="Delete its folder and run its step again.")


def _digest(*parts: str | None) -> bytes:
    # None and an empty text are told apart by the byte before a text.
    joined = "\x00".join("" if part is None else f"\x01{part}" for part in parts)
    return hashlib.blake2b(joined.encode(), digest_size=_DIGEST_BYTES, usedforsecurity=False).digest()


def _number(digests: bytearray) -> Ints:
    """Numbers the distinct digests 0, 1, ... in the order of their first occurrence, int64 [digests]."""
    halves = np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: the first of equals is their first occurrence
    ordered = halves[order]
    is_first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    firsts = order[is_first]
    number = np.empty(len(firsts), dtype=np.int64)
    number[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = number[np.cumsum(is_first) - 1]
    return numbers
