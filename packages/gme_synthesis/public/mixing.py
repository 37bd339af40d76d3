"""Which examples of imported sets are trained on: none that a benchmark holds, and of the rest the shares by kind."""

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
from gme_synthesis.public.draw import Ints, divide, divide_kinds, draw
from gme_synthesis.public.registry import kind_of
from gme_synthesis.stages import Reject
from gme_synthesis.steps.contamination import Benchmarks
from gme_synthesis.steps.near_duplicates import difference_hash

_BATCH = 2_000
_HASHES = 100_000
"""Pictures whose hash is remembered."""


@dataclass(frozen=True)
class ImportedSet:
    """A set that was imported by itself.

    Attributes:
        folder: What `gme_synthesis.pairs.importing.import_rows` wrote.
    """

    choice: SetChoice
    folder: Path

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its training examples, as rows of their table."""
        for path in shard_paths(self.folder / "train", "examples"):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()

    def kind_of(self, task_type: str) -> str:
        """What an example counts as in the shares."""
        return self.choice.kind or kind_of(task_type)

    def takes(self, task_type: str) -> bool:
        """Whether the pipeline file wants examples of a task type."""
        return not self.choice.task_types or task_type in self.choice.task_types

    def tasks(self) -> list[Path]:
        """Folders of its held-out tasks, of the task types that are wanted."""
        folders_of_tasks = sorted(path.parent for path in (self.folder / "tasks").rglob(CARD))
        return [path for path in folders_of_tasks if self.takes(load_card(path).task_type)]

    def task_types(self) -> set[str]:
        """Task types of its examples that are wanted."""
        columns = (
            pq.read_table(path, columns=["task_type"]) for path in shard_paths(self.folder / "train", "examples")
        )
        present = {name for table in columns for name in table.column("task_type").unique().to_pylist()}
        return set(filter(self.takes, present))


@dataclass(frozen=True)
class Mixture:
    """What is trained on.

    Attributes:
        taken: Set -> numbers of its examples that are taken, ascending.
        there: Set -> examples that could have been taken.
        kinds: Kind -> examples taken.
        rejects: Examples that were refused.
        benchmarks: Tasks that were there to compare with.
    """

    taken: Mapping[str, Ints]
    there: Mapping[str, int]
    kinds: Mapping[str, int]
    rejects: Sequence[Reject]
    benchmarks: Sequence[str]


def mix(config: PublicConfig, imported_sets: Sequence[ImportedSet]) -> Mixture:
    """Decide what is trained on.

    Raises:
        FoundryError: There are no benchmark tasks where the pipeline file says, or a kind that has a share has no
            examples.
    """
    folders = [config.benchmarks] if config.benchmarks else []
    held_out = [imported.folder / "tasks" for imported in imported_sets if imported.tasks()]
    judges = [
        Benchmarks(folders, config.ngram, config.picture_distance, config.compared),
        # A query that one set holds out, another may train on.
        Benchmarks(held_out, config.ngram, config.picture_distance, "queries"),
    ]
    usable: dict[tuple[str, str], list[int]] = defaultdict(list)
    rejects: list[Reject] = []
    seen: set[int] = set()
    for imported in imported_sets:
        for number, kind, reject in _judged(imported, judges, seen):
            if reject:
                rejects.append(reject)
            else:
                usable[kind, imported.choice.name].append(number)
    taken = _taken(config, imported_sets, usable)
    sums: Counter[str] = Counter()
    for (kind, _), numbers in taken.items():
        sums[kind] += len(numbers)
    return Mixture(
        {imported.choice.name: _joined(taken, imported.choice.name) for imported in imported_sets},
        {
            imported.choice.name: sum(len(rows) for (_, name), rows in usable.items() if name == imported.choice.name)
            for imported in imported_sets
        },
        dict(sorted(sums.items())),
        rejects,
        sorted(task.name for task in judges[0].tasks),
    )


def _judged(
    imported: ImportedSet, judges: Sequence[Benchmarks], seen: set[int]
) -> Iterator[tuple[int, str, Reject | None]]:
    """Number and kind of each example of the wanted task types, and why it is refused, if it is."""
    store = ImageStore([imported.folder / "images"])
    look = lru_cache(_HASHES)(lambda id_: difference_hash(store.load(id_)))
    with Progress(f"compare {imported.choice.name}", None, "examples") as progress:
        for number, row in enumerate(imported.rows()):
            if imported.takes(row["task_type"]):
                yield (
                    number,
                    imported.kind_of(row["task_type"]),
                    _refused(imported, Example.from_row(row), judges, look, seen),
                )
            progress.advance()


def _refused(
    imported: ImportedSet, example: Example, judges: Sequence[Benchmarks], look: Callable[[str], int], seen: set[int]
) -> Reject | None:
    subject = f"{imported.choice.name}: {example.id}"
    for judge in judges:
        if reject := judge.reject(example, look):
            return Reject(reject.step, reject.reason, subject, reject.text)
    key = int(example.id[:16], 16)
    if key in seen:
        return Reject("mix", "same-example-in-another-set", subject, example.query.text or str(example.query.image))
    seen.add(key)
    return None


def _taken(
    config: PublicConfig, imported_sets: Sequence[ImportedSet], usable: Mapping[tuple[str, str], list[int]]
) -> dict[tuple[str, str], Ints]:
    """Kind and set -> numbers of the examples that are taken."""
    there: Counter[str] = Counter()
    for (kind, _), numbers in usable.items():
        there[kind] += len(numbers)
    if lacking := [kind for kind in config.shares or {} if not there[kind]]:
        raise FoundryError(
            f"corpus.shares: no set has examples of the kind {', '.join(lacking)}.",
            hint="Add a set of that kind (`gme data list`), or leave the kind out of `shares`.",
        )
    parts = {imported.choice.name: imported.choice.share for imported in imported_sets}
    taken: dict[tuple[str, str], Ints] = {}
    for kind, most in divide_kinds(there, config.shares, config.examples).items():
        sets = {name: len(numbers) for (of_kind, name), numbers in usable.items() if of_kind == kind}
        for name, wanted in divide(most, sets, parts).items():
            rows: Ints = np.asarray(usable[kind, name], dtype=np.int64)
            drawn = draw(len(rows), wanted, config.seed, f"{name}:{kind}")
            taken[kind, name] = rows if drawn is None else rows[drawn]
    return taken


def _joined(taken: Mapping[tuple[str, str], Ints], name: str) -> Ints:
    of_set = [numbers for (_, of_name), numbers in taken.items() if of_name == name]
    return np.sort(np.concatenate([*of_set, np.zeros(0, np.int64)]))
