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
from gme_synthesis.records import Reject
from gme_synthesis.steps.contamination import Benchmarks
from gme_synthesis.steps.near_duplicates import difference_hash

_BATCH = 2_000
_HASHES = 100_000
"""Pictures whose hash is remembered."""


@dataclass(frozen=True)
class ReadySet:
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
        found = sorted(path.parent for path in (self.folder / "tasks").rglob(CARD))
        return [path for path in found if self.takes(load_card(path).task_type)]

    def task_types(self) -> set[str]:
        """Task types of its examples that are wanted."""
        columns = (
            pq.read_table(path, columns=["task_type"]) for path in shard_paths(self.folder / "train", "examples")
        )
        found = {name for table in columns for name in table.column("task_type").unique().to_pylist()}
        return set(filter(self.takes, found))


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


def mix(config: PublicConfig, ready: Sequence[ReadySet]) -> Mixture:
    """Decide what is trained on.

    Raises:
        FoundryError: There are no benchmark tasks where the pipeline file says, or a kind that has a share has no
            examples.
    """
    folders = [config.benchmarks] if config.benchmarks else []
    held_out = [one.folder / "tasks" for one in ready if one.tasks()]
    judges = [
        Benchmarks(folders, config.ngram, config.picture_distance, config.compared),
        # A query that one set holds out, another may train on.
        Benchmarks(held_out, config.ngram, config.picture_distance, "queries"),
    ]
    good: dict[tuple[str, str], list[int]] = defaultdict(list)
    rejects: list[Reject] = []
    seen: set[int] = set()
    for one in ready:
        for number, kind, reject in _judged(one, judges, seen):
            if reject:
                rejects.append(reject)
            else:
                good[kind, one.choice.name].append(number)
    taken = _taken(config, ready, good)
    sums: Counter[str] = Counter()
    for (kind, _), numbers in taken.items():
        sums[kind] += len(numbers)
    return Mixture(
        {one.choice.name: _joined(taken, one.choice.name) for one in ready},
        {
            one.choice.name: sum(len(rows) for (_, name), rows in good.items() if name == one.choice.name)
            for one in ready
        },
        dict(sorted(sums.items())),
        rejects,
        sorted(task.name for task in judges[0].tasks),
    )


def _judged(one: ReadySet, judges: Sequence[Benchmarks], seen: set[int]) -> Iterator[tuple[int, str, Reject | None]]:
    """Number and kind of each example of the wanted task types, and why it is refused, if it is."""
    store = ImageStore([one.folder / "images"])
    look = lru_cache(_HASHES)(lambda id_: difference_hash(store.load(id_)))
    with Progress(f"compare {one.choice.name}", None, "examples") as progress:
        for number, row in enumerate(one.rows()):
            if one.takes(row["task_type"]):
                yield number, one.kind_of(row["task_type"]), _refused(one, Example.from_row(row), judges, look, seen)
            progress.advance()


def _refused(
    one: ReadySet, example: Example, judges: Sequence[Benchmarks], look: Callable[[str], int], seen: set[int]
) -> Reject | None:
    subject = f"{one.choice.name}: {example.id}"
    for judge in judges:
        if reject := judge.reject(example, look):
            return Reject(reject.step, reject.reason, subject, reject.text)
    key = int(example.id[:16], 16)
    if key in seen:
        return Reject("mix", "same-example-in-another-set", subject, example.query.text or str(example.query.image))
    seen.add(key)
    return None


def _taken(
    config: PublicConfig, ready: Sequence[ReadySet], good: Mapping[tuple[str, str], list[int]]
) -> dict[tuple[str, str], Ints]:
    """Kind and set -> numbers of the examples that are taken."""
    there: Counter[str] = Counter()
    for (kind, _), numbers in good.items():
        there[kind] += len(numbers)
    if lacking := [kind for kind in config.shares or {} if not there[kind]]:
        raise FoundryError(
            f"corpus.shares: no set has examples of the kind {', '.join(lacking)}.",
            hint="Add a set of that kind (`gme data list`), or leave the kind out of `shares`.",
        )
    parts = {one.choice.name: one.choice.share for one in ready}
    taken: dict[tuple[str, str], Ints] = {}
    for kind, most in divide_kinds(there, config.shares, config.examples).items():
        sets = {name: len(numbers) for (of_kind, name), numbers in good.items() if of_kind == kind}
        for name, wanted in divide(most, sets, parts).items():
            rows: Ints = np.asarray(good[kind, name], dtype=np.int64)
            drawn = draw(len(rows), wanted, config.seed, f"{name}:{kind}")
            taken[kind, name] = rows if drawn is None else rows[drawn]
    return taken


def _joined(taken: Mapping[tuple[str, str], Ints], name: str) -> Ints:
    of_set = [numbers for (_, of_name), numbers in taken.items() if of_name == name]
    return np.sort(np.concatenate([*of_set, np.zeros(0, np.int64)]))
