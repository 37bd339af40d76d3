"""The step that joins several corpora into one: examples in the shares of the pipeline file, their tasks and pictures.

Each corpus was imported, synthesised and validated by itself. Its sources, tasks and entity groups get its name as a
prefix here, so that none can be mistaken for one of another corpus. An example that repeats a held-out query of another
corpus is refused.
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
from gme_synthesis.stages import Reject
from gme_synthesis.steps.contamination import BenchmarkIndex
from gme_synthesis.steps.near_duplicates import difference_hash

_BATCH_ROWS = 2_000
_HASHED_PICTURES = 100_000
"""The difference hashes of so many pictures are cached."""
_ID_LENGTH = 24
RowT = TypeVar("RowT", Document, Query)


class JoinConfig(Frozen):
    """How several corpora become one."""

    shares: dict[str, PositiveFloat] = Field(default={})
    """Part of the examples that each corpus gives; filled in from the corpora of the file."""
    examples: PositiveInt | None = None
    """Number of examples together; None takes as many as the shares allow, and all of the scarcest corpus."""
    ngram: int = Field(default=13, ge=4)
    """Words in a row that an example may not share with a held-out query of another corpus."""
    picture_distance: int = Field(default=4, ge=0, le=7)
    """Bits of 64 in which the difference hashes of two pictures differ at most to count as the same picture."""
    seed: int = 0
    """Seed that the examples are drawn by."""


@dataclass(frozen=True, slots=True)
class _NamedCorpus:
    """A corpus to join.

    Attributes:
        name: Its name in the pipeline file.
        folder: Folder with its examples in ``train/``, and ``images/``.
        task_folder: Folder with ``tasks/``, and ``images/`` too; the same as `folder`, unless the corpus supplies its
            tasks itself.
    """

    name: str
    folder: Path
    task_folder: Path

    def examples(self) -> Iterator[Example]:
        """Yields its training examples, with its name as a prefix of source, entity group and batch key."""
        for row in read_shard_rows(self.folder / "train", "examples"):
            example = Example.from_row(row)
            yield replace(
                example,
                # Ids are digests of contents, so two corpora may hold the same one.
                id=sha256_json([self.name, example.id])[:_ID_LENGTH],
                source=f"{self.name}/{example.source}",
                entity_group=f"{self.name}:{example.entity_group}",
                batch_key=f"{self.name}:{example.batch_key}",
            )

    def tasks(self) -> list[Path]:
        """Returns the folders of its tasks."""
        return sorted(path.parent for path in (self.task_folder / "tasks").rglob(CARD))

    def image_folders(self) -> list[Path]:
        """Returns the folders of its pictures, each once."""
        return list(dict.fromkeys([self.folder / "images", self.task_folder / "images"]))


def tasks_input(name: str) -> str:
    """Returns the name of the input with the tasks that a corpus supplies; without it they lie with its examples."""
    return f"{name}.tasks"


def join_corpora(config: JoinConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes ``train/``, ``tasks/``, ``images/`` and ``rejects/``; an input holds the examples of the corpus it names.

    Raises:
        FoundryError: A corpus has no example that may be trained on.
    """
    corpora = [_NamedCorpus(name, inputs[name], inputs.get(tasks_input(name), inputs[name])) for name in config.shares]
    rejects: list[Reject] = []
    usable = {corpus.name: _usable_rows(corpus, corpora, config, rejects) for corpus in corpora}
    if empty := [name for name, rows in usable.items() if not len(rows)]:
        raise FoundryError(
            f"corpora.{empty[0]}: nothing of it may be trained on: {len(rejects)} examples were refused.",
            hint="They repeat what another corpus holds out as a query: bring other data, or leave the corpus out.",
        )
    # Refused examples do not count: shares are of what may be trained on.
    sizes = allocate_by_kind({name: len(rows) for name, rows in usable.items()}, config.shares, config.examples)
    selected = {name: _sample(rows, sizes[name], config.seed, name) for name, rows in usable.items()}

    pictures: set[str] = set()
    examples = (example for corpus in corpora for example in select_rows(corpus.examples(), selected[corpus.name]))
    rows = (example.to_row() for example in _collect_pictures(examples, pictures))
    write_shards(context.staging / "train", "examples", rows, EXAMPLES_SCHEMA)
    tasks = [name for corpus in corpora for name in _write_tasks(corpus, context.staging / "tasks", pictures)]
    # Last: `pictures` is complete only when examples and tasks have been written.
    images = read_image_rows([folder for corpus in corpora for folder in corpus.image_folders()], pictures)
    write_shards(context.staging / "images", "images", images, IMAGES_SCHEMA, row_group_rows=ROW_GROUP_ROWS)
    write_rejects(context.staging / "rejects", rejects)
    counts = {f"examples of {name}": len(rows) for name, rows in selected.items()}
    return {"examples": sum(counts.values()), **counts, "tasks": len(tasks), "rejects": len(rejects)}


def read_shard_rows(folder: Path, stem: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of all ``<stem>-*.parquet`` shards of a folder, with one batch in memory at a time."""
    for path in shard_paths(folder, stem):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()


def read_image_rows(stores: Iterable[Path], ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the pictures with these ids, each once, from whichever of the stores has it first."""
    missing = set(ids)
    for store in stores:
        for row in read_shard_rows(store, "images"):
            if row["id"] in missing:
                missing.discard(row["id"])
                yield row


def _usable_rows(
    corpus: _NamedCorpus, corpora: Sequence[_NamedCorpus], config: JoinConfig, rejects: list[Reject]
) -> Ints:
    """Returns the numbers of the examples that repeat no query of another corpus; appends the others to `rejects`."""
    # Within one corpus, synthesis has kept training examples and tasks apart already.
    others = [other.task_folder / "tasks" for other in corpora if other.name != corpus.name and other.tasks()]
    benchmarks = BenchmarkIndex(others, config.ngram, config.picture_distance, "queries")
    store = ImageStore(corpus.image_folders())
    picture_hash = lru_cache(_HASHED_PICTURES)(lambda id_: difference_hash(store.load(id_)))
    usable = []
    with Progress(f"compare {corpus.name}", None, "examples") as progress:
        for number, example in enumerate(corpus.examples()):
            reject = benchmarks.reject(example, picture_hash) if others else None
            if reject:
                rejects.append(replace(reject, subject=f"{corpus.name}: {reject.subject}"))
            else:
                # Numbers, not examples: the drawn ones are read again, and memory stays flat.
                usable.append(number)
            progress.advance()
    return np.asarray(usable, dtype=np.int64)


def _sample(rows: Ints, count: int, seed: int, name: str) -> Ints:
    """Returns `count` of the rows, ascending, chosen by seed and name of the corpus alone."""
    positions = sample_rows(len(rows), count, seed, name)
    return rows if positions is None else rows[positions]


def _collect_pictures(examples: Iterable[Example], pictures: set[str]) -> Iterator[Example]:
    """Passes the examples on, and adds the ids of their pictures to `pictures`."""
    for example in examples:
        items = (example.query, example.positive, *example.negatives)
        pictures.update(item.image for item in items if item.image)
        yield example


def _write_tasks(corpus: _NamedCorpus, folder: Path, pictures: set[str]) -> Iterator[str]:
    """Writes the tasks of a corpus with its name as a prefix; adds the ids of their pictures to `pictures`."""
    for path in corpus.tasks():
        task = load_task(path)
        # Two corpora may hold out tasks of one name.
        card = task.card.model_copy(update={"name": f"{corpus.name}-{task.card.name}"})
        documents = tuple(_prefix_group(document, corpus.name) for document in task.corpus)
        queries = tuple(_prefix_group(query, corpus.name) for query in task.queries)
        items = [*(document.item for document in documents), *(query.item for query in queries)]
        pictures.update(item.image for item in items if item.image)
        save_task(folder / path.parent.name / card.name, replace(task, card=card, corpus=documents, queries=queries))
        yield card.name


def _prefix_group(row: RowT, name: str) -> RowT:
    return replace(row, entity_group=f"{name}:{row.entity_group}")
