"""The index of a training set: built once, read by every rank without loading it.

Examples are copied into one Arrow file that can be mapped into memory, every distinct item gets a number, and what is
looked up in training (who is a positive of whom, which examples share a source or a key) is sorted beforehand. Two
items are one if their text and picture are equal, so that nothing is encoded twice in a batch and no copy of a positive
is taken for a negative. Knows files and numbers; not batches.
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

FACTS, ROWS = "index.json", "examples.arrow"
VERSION = 1
_AT_ONCE = 16_384
_DIGEST = 16  # bytes; of 100 million items two would be confused with a probability of 1e-23
Ints = NDArray[np.int64]
Mark = tuple[str, int, int]
"""Name, size and time of change, in nanoseconds, of a shard."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Examples of one source and task type, all with hard negatives or all without: a span of the rows by stratum."""

    source: str
    task_type: str
    with_negatives: bool
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What an index is of: the shards, and the strata of their examples, ordered."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: int
    shards: tuple[Mark, ...]
    strata: tuple[Stratum, ...]


def ensure_index(examples: Sequence[Path], folder: Path, pictures: Container[str]) -> None:
    """Build the index of the shards in `examples`, one set after the other, unless `folder` holds it already.

    Args:
        examples: Folders of ``examples-*.parquet``.
        folder: Of the index; on disk it is about as large as the shards without compression.
        pictures: Ids of the pictures there are.

    Raises:
        FoundryError: Shards missing, damaged, or without a column; an example with an unknown picture.
    """
    paths = [path for one in examples for path in shard_paths(one, "examples")]
    marks = tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    if _describes(folder, marks):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    facts = IndexFacts(VERSION, marks, _build(paths, folder, pictures))
    fsync_tree(folder)
    atomic_write(folder / FACTS, json.dumps(asdict(facts)).encode())  # last: without it the folder counts for nothing


def read_facts(folder: Path) -> IndexFacts:
    """What an index is of.

    Raises:
        StructureError: The file that says it is damaged.
        FileNotFoundError: The index was never finished.
    """
    return read_json(folder / FACTS, IndexFacts, max_bytes=2**30, hint=f"Delete {folder}; it is built again.")


def save_arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    """Each as a file that `load_array` maps."""
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def load_array(folder: Path, name: str) -> Ints:
    """An array of `save_arrays`, mapped: only what is looked at is read.

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
    """Derive what training looks up from who is who, and save it.

    Args:
        folder: Where to.
        starts: int64 [n + 1], where the items of each example begin in `items`.
        items: int64 [m], for each example the numbers of its query, its positive and its negatives.
        group: int64 [n], the entity group of each example.
        key: int64 [n], its batch key.
        strata_of: int64 [n], the stratum of each.

    Returns:
        For each stratum that has examples (its number, first place, last place + 1) among the rows by stratum.
    """
    query, positive = items[starts[:-1]], items[starts[:-1] + 1]
    firsts = np.unique(items, return_index=True)[1]
    fact = group * (key.max() + 1 if len(key) else 1) + key
    orders = {name: np.argsort(one, kind="stable") for name, one in (("query", query), ("fact", fact), ("key", key))}
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
    numbers, places, counts = np.unique(strata_of[by_stratum], return_index=True, return_counts=True)
    return [
        (number, place, place + count)
        for number, place, count in zip(numbers.tolist(), places.tolist(), counts.tolist(), strict=True)
    ]


def _describes(folder: Path, marks: tuple[Mark, ...]) -> bool:
    """Whether a folder holds the index of these shards; one that is damaged is built again."""
    try:
        facts = read_facts(folder)
    except (FileNotFoundError, StructureError):
        return False
    return (facts.version, facts.shards) == (VERSION, marks)


def _build(paths: list[Path], folder: Path, pictures: Container[str]) -> tuple[Stratum, ...]:
    """Copy and number; the strata there are."""
    gathered = _Gathered()
    files = [_opened(path) for path in paths]
    total = sum(file.metadata.num_rows for file in files)
    with (
        pa.OSFile(str(folder / ROWS), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
        Progress("index", total, "examples") as progress,
    ):
        for path, file in zip(paths, files, strict=True):
            for batch in _batches(path, file):
                writer.write_batch(batch)
                for row in batch.select(_NUMBERED).to_pylist():
                    gathered.add(row, pictures)
                progress.advance(batch.num_rows)
    starts = np.cumsum(np.array([0, *gathered.counts]), dtype=np.int64)
    ordered = sorted(gathered.kinds)  # strata of one source, and of one task type in it, side by side
    rank = np.array([ordered.index(named) for named in gathered.kinds], dtype=np.int64)
    items, groups, keys = (_numbered(digests) for digests in (gathered.items, gathered.groups, gathered.keys))
    spans = write_lookups(folder, starts, items, groups, keys, rank[np.array(gathered.kind, dtype=np.int64)])
    return tuple(Stratum(*ordered[number], first, last) for number, first, last in spans)


_NUMBERED = ["id", "query", "positive", "negatives", "entity_group", "source", "batch_key", "task_type"]


class _Gathered:
    """What names the examples seen so far: digests, end to end, and numbers."""

    def __init__(self) -> None:
        self.items, self.groups, self.keys = bytearray(), bytearray(), bytearray()
        self.counts = array("q")
        self.kinds: dict[tuple[str, str, bool], int] = {}
        self.kind = array("q")

    def add(self, row: dict[str, Any], pictures: Container[str]) -> None:
        """One example, its pictures checked."""
        everything = (row["query"], row["positive"], *row["negatives"])
        for item in everything:
            if item["image"] is not None and item["image"] not in pictures:
                raise FoundryError(
                    f"Example '{row['id']}' of source '{row['source']}' has a picture that no picture shard holds: "
                    f"{item['image']}.",
                    hint="Write it with `write_images`, or leave the example out.",
                )
        self.items += b"".join([_digest(item["image"], item["text"]) for item in everything])
        self.groups += _digest(row["entity_group"])
        self.keys += _digest(row["source"], row["batch_key"])
        self.counts.append(len(everything))
        named = row["source"], row["task_type"], bool(row["negatives"])
        self.kind.append(self.kinds.setdefault(named, len(self.kinds)))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except UNREADABLE as error:
        raise _corrupt(path, error) from error
    missing = sorted(set(SCHEMA.names) - set(file.schema_arrow.names))
    if missing:
        raise FoundryError(f"{path}: column(s) missing: {', '.join(missing)}.", hint="Run the step that makes it.")
    return file


def _batches(path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(_AT_ONCE, columns=SCHEMA.names):
            yield pa.RecordBatch.from_arrays([batch.column(name) for name in SCHEMA.names], schema=SCHEMA)
    except UNREADABLE as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> FoundryError:
    return FoundryError(f"Corrupt parquet file: {path}: {error}", hint="Delete its folder and run its step again.")


def _digest(*parts: str | None) -> bytes:
    told = "\x00".join("" if part is None else f"\x01{part}" for part in parts)
    return hashlib.blake2b(told.encode(), digest_size=_DIGEST, usedforsecurity=False).digest()


def _numbered(digests: bytearray) -> Ints:
    """0, 1, ... for each distinct digest in the order of their first occurrence."""
    halves = np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: the first of equals is their first occurrence
    ordered = halves[order]
    fresh = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    firsts = order[fresh]
    number = np.empty(len(firsts), dtype=np.int64)
    number[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = number[np.cumsum(fresh) - 1]
    return numbers
