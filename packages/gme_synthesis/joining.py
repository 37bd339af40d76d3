"""The step that makes one corpus of several: their examples in the shares of the pipeline file, their tasks, pictures.

Each corpus was imported, synthesised and validated by itself. Its sources, tasks and entity groups are named after it
here, so that none is taken for one of another corpus; what one holds out as a query, no other may train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field, PositiveFloat, PositiveInt

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA as EXAMPLES_SCHEMA
from gme_data.examples import Example
from gme_data.images import ROW_GROUP_ROWS, ImageStore
from gme_data.images import SCHEMA as IMAGES_SCHEMA
from gme_data.parquet import shard_paths, write_shards
from gme_data.progress import Progress
from gme_data.settings import Frozen
from gme_data.steps import Counts, StepContext
from gme_data.tasks import CARD, Document, Query, load_task, save_task
from gme_synthesis.funnel import write_rejects
from gme_synthesis.public.sampling import Ints, allocate_by_kind, sample_rows, select_rows
from gme_synthesis.records import Reject
from gme_synthesis.steps.contamination import BenchmarkIndex
from gme_synthesis.steps.near_duplicates import difference_hash

_BATCH = 2_000
_HASHES = 100_000
"""Pictures whose hash is remembered."""
_ID = 24
RowT = TypeVar("RowT", Document, Query)


class JoinConfig(Frozen):
    """How several corpora become one."""

    shares: dict[str, PositiveFloat] = Field(default={})
    """Part of the examples that each corpus gives; filled in from the corpora of the file."""
    examples: PositiveInt | None = None
    """Examples together; None takes as many as the shares allow, the scarcest corpus whole."""
    ngram: int = Field(default=13, ge=4)
    """Words in a row that an example may not share with a held-out query of another corpus."""
    picture_distance: int = Field(default=4, ge=0, le=7)
    """Bits of 64 in which the difference hashes of two pictures differ at most to be the same."""
    seed: int = 0
    """Draws the examples."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A corpus.

    Attributes:
        name: As the pipeline file calls it.
        folder: Has its examples in ``train/``, and ``images/``.
        labelled: Has ``tasks/``, and ``images/`` too; the same folder, unless the corpus brought its tasks along.
    """

    name: str
    folder: Path
    labelled: Path

    def examples(self) -> Iterator[Example]:
        """Its training examples, named after it."""
        for row in rows_of(self.folder / "train", "examples"):
            example = Example.from_row(row)
            yield replace(
                example,
                id=sha256_json([self.name, example.id])[:_ID],
                source=f"{self.name}/{example.source}",
                entity_group=f"{self.name}:{example.entity_group}",
                batch_key=f"{self.name}:{example.batch_key}",
            )

    def tasks(self) -> list[Path]:
        """Folders of its tasks."""
        return sorted(path.parent for path in (self.labelled / "tasks").rglob(CARD))

    def images(self) -> list[Path]:
        """Folders of its pictures."""
        return list(dict.fromkeys([self.folder / "images", self.labelled / "images"]))


def tasks_of(name: str) -> str:
    """The input with the tasks that a corpus brought along; without it they lie with its examples."""
    return f"{name}.tasks"


def join_corpora(config: JoinConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write ``train/``, ``tasks/``, ``images/`` and ``rejects/`` from the inputs: examples by the name of their corpus.

    Raises:
        FoundryError: A corpus has no example that may be trained on.
    """
    parts = [_Part(name, inputs[name], inputs.get(tasks_of(name), inputs[name])) for name in config.shares]
    rejects: list[Reject] = []
    usable = {part.name: _usable(part, parts, config, rejects) for part in parts}
    if empty := [name for name, rows in usable.items() if not len(rows)]:
        raise FoundryError(
            f"corpora.{empty[0]}: nothing of it may be trained on: {len(rejects)} examples were refused.",
            hint="They repeat what another corpus holds out as a query: bring other data, or leave the corpus out.",
        )
    sizes = allocate_by_kind({name: len(rows) for name, rows in usable.items()}, config.shares, config.examples)
    drawn = {name: _drawn(rows, sizes[name], config.seed, name) for name, rows in usable.items()}
    pictures: set[str] = set()
    rows = (
        example.to_row()
        for part in parts
        for example in _noted(select_rows(part.examples(), drawn[part.name]), pictures)
    )
    write_shards(context.staging / "train", "examples", rows, EXAMPLES_SCHEMA)
    tasks = [name for part in parts for name in _write_tasks(part, context.staging / "tasks", pictures)]
    images = images_of([folder for part in parts for folder in part.images()], pictures)
    write_shards(context.staging / "images", "images", images, IMAGES_SCHEMA, row_group_rows=ROW_GROUP_ROWS)
    write_rejects(context.staging / "rejects", rejects)
    trained = {f"examples of {name}": len(rows) for name, rows in drawn.items()}
    return {"examples": sum(trained.values()), **trained, "tasks": len(tasks), "rejects": len(rejects)}


def rows_of(folder: Path, stem: str) -> Iterator[dict[str, Any]]:
    """Rows of all ``<stem>-*.parquet`` shards of a folder, a batch in memory at a time."""
    for path in shard_paths(folder, stem):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def images_of(stores: Iterable[Path], wanted: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of the pictures of these ids, each once, whichever of the stores have it."""
    left = set(wanted)
    for store in stores:
        for row in rows_of(store, "images"):
            if row["id"] in left:
                left.discard(row["id"])
                yield row


def _usable(part: _Part, parts: Sequence[_Part], config: JoinConfig, rejects: list[Reject]) -> Ints:
    """Numbers of the examples that repeat no query which another corpus holds out."""
    others = [other.labelled / "tasks" for other in parts if other.name != part.name and other.tasks()]
    judge = BenchmarkIndex(others, config.ngram, config.picture_distance, "queries")
    store = ImageStore(part.images())
    look = lru_cache(_HASHES)(lambda id_: difference_hash(store.load(id_)))
    usable = []
    with Progress(f"compare {part.name}", None, "examples") as progress:
        for number, example in enumerate(part.examples()):
            reject = judge.reject(example, look) if others else None
            if reject:
                rejects.append(replace(reject, subject=f"{part.name}: {reject.subject}"))
            else:
                usable.append(number)
            progress.advance()
    return np.asarray(usable, dtype=np.int64)


def _drawn(rows: Ints, wanted: int, seed: int, name: str) -> Ints:
    places = sample_rows(len(rows), wanted, seed, name)
    return rows if places is None else rows[places]


def _noted(examples: Iterable[Example], pictures: set[str]) -> Iterator[Example]:
    """The examples; their pictures are noted."""
    for example in examples:
        items = (example.query, example.positive, *example.negatives)
        pictures.update(item.image for item in items if item.image)
        yield example


def _write_tasks(part: _Part, folder: Path, pictures: set[str]) -> Iterator[str]:
    """Write the tasks of a corpus, named after it; notes their pictures."""
    for path in part.tasks():
        task = load_task(path)
        card = task.card.model_copy(update={"name": f"{part.name}-{task.card.name}"})
        corpus = tuple(_of_part(document, part) for document in task.corpus)
        queries = tuple(_of_part(query, part) for query in task.queries)
        items = [*(document.item for document in corpus), *(query.item for query in queries)]
        pictures.update(item.image for item in items if item.image)
        save_task(folder / path.parent.name / card.name, replace(task, card=card, corpus=corpus, queries=queries))
        yield card.name


def _of_part(row: RowT, part: _Part) -> RowT:
    return replace(row, entity_group=f"{part.name}:{row.entity_group}")
