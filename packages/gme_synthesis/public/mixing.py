"""Selects the examples of imported sets to train on: none that a benchmark contains, the others by shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.images import ImageStore
from gme_data.parquet import shard_paths
from gme_data.progress import Progress
from gme_data.tasks import CARD, load_card
from gme_synthesis.public.config import PublicConfig, SetChoice
from gme_synthesis.public.registry import kind_of
from gme_synthesis.public.sampling import Ints, allocate, allocate_by_kind, sample_rows
from gme_synthesis.stages import Reject
from gme_synthesis.steps.contamination import BenchmarkIndex
from gme_synthesis.steps.near_duplicates import difference_hash

_ROWS_PER_BATCH = 2_000
_CACHED_HASHES = 100_000
"""Number of pictures whose difference hash is cached."""


@dataclass(frozen=True)
class ImportedSet:
    """A set that was imported by itself.

    Attributes:
        choice: The set.
        folder: The output of `gme_synthesis.pairs.importing.import_rows`.
    """

    choice: SetChoice
    folder: Path

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the training examples, as rows of their table."""
        for path in shard_paths(self.folder / "train", "examples"):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_PER_BATCH):
                yield from batch.to_pylist()

    def kind_of(self, task_type: str) -> str:
        """Returns the kind that examples of a task type count as in the shares."""
        return self.choice.kind or kind_of(task_type)

    def includes(self, task_type: str) -> bool:
        """Says whether the pipeline file wants examples of a task type."""
        return not self.choice.task_types or task_type in self.choice.task_types

    def tasks(self) -> list[Path]:
        """Returns the folders of the held-out tasks of included task types."""
        folders_of_tasks = sorted(path.parent for path in (self.folder / "tasks").rglob(CARD))
        return [path for path in folders_of_tasks if self.includes(load_card(path).task_type)]

    def task_types(self) -> set[str]:
        """Returns the included task types that the set has examples of."""
        columns = (
            pq.read_table(path, columns=["task_type"]) for path in shard_paths(self.folder / "train", "examples")
        )
        present = {name for table in columns for name in table.column("task_type").unique().to_pylist()}
        return set(filter(self.includes, present))


@dataclass(frozen=True)
class Mixture:
    """The selected examples.

    Attributes:
        selected: Set -> row numbers of its selected examples, ascending.
        available: Set -> number of examples that could have been selected.
        kinds: Kind -> number of selected examples.
        rejects: Examples that were refused.
        benchmarks: Names of the tasks that were compared with.
    """

    selected: Mapping[str, Ints]
    available: Mapping[str, int]
    kinds: Mapping[str, int]
    rejects: Sequence[Reject]
    benchmarks: Sequence[str]


def mix(config: PublicConfig, imported_sets: Sequence[ImportedSet]) -> Mixture:
    """Selects the examples to train on.

    Raises:
        FoundryError: There are no benchmark tasks where the pipeline file says, or a kind that has a share has no
            examples.
    """
    folders = [config.benchmarks] if config.benchmarks else []
    held_out = [imported.folder / "tasks" for imported in imported_sets if imported.tasks()]
    benchmarks = BenchmarkIndex(folders, config.ngram, config.picture_distance, config.compared)
    # A query that one set holds out may be a training example of another set.
    held_out_tasks = BenchmarkIndex(held_out, config.ngram, config.picture_distance, "queries")
    usable: dict[tuple[str, str], list[int]] = defaultdict(list)  # kind and set -> row numbers of examples
    rejects: list[Reject] = []
    example_ids: set[int] = set()
    for imported in imported_sets:
        for number, kind, reject in _check_examples(imported, (benchmarks, held_out_tasks), example_ids):
            if reject:
                rejects.append(reject)
            else:
                usable[kind, imported.choice.name].append(number)
    selected = _select(config, imported_sets, usable)
    kinds: Counter[str] = Counter()
    for (kind, _), numbers in selected.items():
        kinds[kind] += len(numbers)
    rows_of_set: dict[str, Ints] = {}
    for imported in imported_sets:
        by_kind = [numbers for (_, name), numbers in selected.items() if name == imported.choice.name]
        rows_of_set[imported.choice.name] = np.sort(np.concatenate([*by_kind, np.zeros(0, np.int64)]))
    return Mixture(
        rows_of_set,
        {
            imported.choice.name: sum(len(rows) for (_, name), rows in usable.items() if name == imported.choice.name)
            for imported in imported_sets
        },
        dict(sorted(kinds.items())),
        rejects,
        sorted(task.name for task in benchmarks.tasks),
    )


def _check_examples(
    imported: ImportedSet, benchmarks: Sequence[BenchmarkIndex], example_ids: set[int]
) -> Iterator[tuple[int, str, Reject | None]]:
    """Yields row number and kind of each example of an included task type, and the reject if it is refused."""
    store = ImageStore([imported.folder / "images"])
    picture_hash = lru_cache(_CACHED_HASHES)(lambda id_: difference_hash(store.load(id_)))
    with Progress(f"compare {imported.choice.name}", None, "examples") as progress:
        for number, row in enumerate(imported.rows()):
            if imported.includes(row["task_type"]):
                reject = _reject(imported, Example.from_row(row), benchmarks, picture_hash, example_ids)
                yield number, imported.kind_of(row["task_type"]), reject
            progress.advance()


def _reject(
    imported: ImportedSet,
    example: Example,
    benchmarks: Sequence[BenchmarkIndex],
    picture_hash: Callable[[str], int],
    example_ids: set[int],
) -> Reject | None:
    """Returns the example as a reject if a benchmark contains it or an earlier set has it; else adds it to the ids."""
    subject = f"{imported.choice.name}: {example.id}"
    for index in benchmarks:
        if reject := index.reject(example, picture_hash):
            return Reject(reject.step, reject.reason, subject, reject.text)
    key = int(example.id[:16], 16)  # 64 bits of the digest, to keep the ids of millions of examples in memory
    if key in example_ids:
        return Reject("mix", "same-example-in-another-set", subject, example.query.text or str(example.query.image))
    example_ids.add(key)
    return None


def _select(
    config: PublicConfig, imported_sets: Sequence[ImportedSet], usable: Mapping[tuple[str, str], list[int]]
) -> dict[tuple[str, str], Ints]:
    """Returns, by kind and set, the row numbers of the examples to train on."""
    available: Counter[str] = Counter()
    for (kind, _), numbers in usable.items():
        available[kind] += len(numbers)
    if empty_kinds := [kind for kind in config.shares or {} if not available[kind]]:
        raise FoundryError(
            f"corpus.shares: no set has examples of the kind {', '.join(empty_kinds)}.",
            hint="Add a set of that kind (`gme data list`), or leave the kind out of `shares`.",
        )
    weights = {imported.choice.name: imported.choice.share for imported in imported_sets}
    selected: dict[tuple[str, str], Ints] = {}
    for kind, kind_total in allocate_by_kind(available, config.shares, config.examples).items():
        sets = {name: len(numbers) for (of_kind, name), numbers in usable.items() if of_kind == kind}
        for name, count in allocate(kind_total, sets, weights).items():
            rows: Ints = np.asarray(usable[kind, name], dtype=np.int64)
            sampled = sample_rows(len(rows), count, config.seed, f"{name}:{kind}")
            selected[kind, name] = rows if sampled is None else rows[sampled]
    return selected
