"""Tasks of mteb, loaded by mteb's own classes, as tasks of ours.

Data come from a folder that `fetch` filled, or, where there is none, from wherever mteb finds them. Knows mteb's tasks;
no model and no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import datasets  # type: ignore[import-untyped]
import mteb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.benchmarks.benchmark import Benchmark
from mteb.types import PromptType

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.tasks import Document, Query, TaskCard
from umrb.data.dataset_side import DatasetSide
from umrb.data.fetch_lock import require_as_fetched
from umrb.metrics import Ints
from umrb.registry import Dataset, load_suite
from umrb.data.tasks import NumberedTask, Qrels, number

Row = TypeVar("Row", Query, Document)
CONVERTED = ".converted"
"""Folder of what `datasets` makes of local copies, beside them; it can be deleted at any time."""

_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
)
"""What mteb and `datasets` raise for files that are missing, damaged or of another shape; an empty corpus is an
IndexError of mteb's."""

datasets.disable_progress_bars()


def local_copy(folder: Path, repository: str) -> Path:
    """Where `fetch` puts a dataset repository."""
    return folder / repository.replace("/", "--")


def mteb_task(name: str, folder: Path | None = None) -> AbsTaskRetrieval:
    """A task of mteb, reading from a local copy below `folder` if there is one.

    Raises:
        FoundryError: mteb has no such retrieval task; something lies in the copy that was not fetched.
    """
    try:
        task = type(mteb.get_task(name))()  # mteb hands out one instance, with the data that it holds
    except KeyError as error:
        raise FoundryError(f"mteb {mteb.__version__} has no task '{name}'.", hint="Install the pinned mteb.") from error
    if not isinstance(task, AbsTaskRetrieval) or task.skip_first_result:
        raise FoundryError(f"The task {name} of mteb is no retrieval task that can be run here.")
    copy = local_copy(folder, task.metadata.dataset["path"]) if folder else None
    if folder is not None and copy is not None and copy.is_dir():
        require_as_fetched(folder, task.metadata.dataset["path"], copy)
        source = {**task.metadata.dataset, "path": str(copy)}
        task.metadata = task.metadata.model_copy(update={"dataset": source})
        task.load_data = _apart(copy, task.load_data)  # type: ignore[method-assign] # of this instance alone
    return task


def load_mteb(
    task: AbsTaskRetrieval, dataset: Dataset, *, frames: int = 1, cache: Path | None = None
) -> tuple[NumberedTask, Qrels]:
    """Load a task's data and number it.

    Args:
        task: See `mteb_task`.
        dataset: Row of the registry that names its metric, split and instruction.
        frames: Of a video.
        cache: Folder that keeps the digests of contents, named by the files of a local copy or else by the revision.

    Returns:
        The task, and its judgements as published, for the check of its integrity.

    Raises:
        FoundryError: The data can't be had, or lack a column or a split.
    """
    split = _load(task, dataset.split)
    licence = str(task.metadata.license)
    version = local_version(task)

    def side(prompt: PromptType, rows: datasets.Dataset, make: Callable[[str, Item], Row]) -> DatasetSide[Row]:
        stem = f"{task.metadata.name}-{version}-{dataset.split}-{prompt.value}-{len(rows)}-{frames}.npy"
        return DatasetSide(
            f"{task.metadata.name}, {prompt.value}",
            rows,
            frozenset(task.metadata.get_modalities(prompt)),
            make,
            descending=prompt is PromptType.document,
            frames=frames,
            cache=cache / stem if cache else None,
        )

    queries = side(PromptType.query, split["queries"], lambda id_, item: Query(id_, item, "", "", licence))
    docs = side(PromptType.document, split["corpus"], lambda id_, item: Document(id_, item, "", licence))
    qrels = Qrels.of(split["relevant_docs"])
    numbered = number(task_card(task.metadata, dataset, len(queries), len(docs)), queries, docs, qrels)
    if task.ignore_identical_ids:
        numbered = replace(numbered, excluded=_same(queries.ids, docs.ids))
    if split["top_ranked"]:
        numbered = replace(numbered, candidates=_candidates(split["top_ranked"], queries.ids, docs.ids))
    return numbered, qrels


def local_version(task: AbsTaskRetrieval) -> str:
    """Names the data of a task as they lie: the state of a local copy, or else the pinned revision."""
    copy = Path(task.metadata.dataset["path"])
    return files_stamp(copy) if copy.is_dir() else str(task.metadata.dataset["revision"])[:12]


def as_benchmark(suite: str = "umrb") -> Benchmark:
    """A suite as mteb takes it, for `mteb.evaluate`. What mteb does not have is left out.

    Headline metrics are then mteb's own; those of the paper are among the scores of each task, see the registry.
    """
    names = [task for dataset in load_suite(suite) if dataset.source == "mteb" for task in dataset.tasks]
    return Benchmark(
        name=suite.upper(),
        tasks=[mteb_task(name) for name in names],
        description="Universal multimodal retrieval, as in arXiv:2412.16855.",
        reference="https://arxiv.org/abs/2412.16855",
    )


def expected_sizes(task: AbsTaskRetrieval, dataset: Dataset, rows: int) -> tuple[int | None, int | None]:
    """Queries and documents that a task should have; None where nothing is to be said.

    The paper rounds, and counts judgements of some sets for queries; so the sum of both in mteb's statistics, if `rows`
    is that, will do as well as the paper's numbers.
    """
    found: dict[str, Any] = dict((task.metadata.descriptive_stats or {}).get(dataset.split) or {})
    if rows == found.get("num_samples"):
        return None, None
    if len(dataset.tasks) == 1:
        return dataset.queries, dataset.candidates
    return found.get("num_queries"), found.get("num_documents")


def instruction_of(dataset: Dataset) -> str | None:
    """With the full stop that the authors' own wrapper puts after it."""
    text = dataset.instruction
    return text if text is None or text.endswith(".") else f"{text}."


def task_card(metadata: TaskMetadata, dataset: Dataset, queries: int, pool: int) -> TaskCard:
    """The card of a task of mteb: name and licence are mteb's, type, metric and instruction the registry's."""
    kind = dataset.task_type
    return TaskCard.model_validate(
        {
            "name": metadata.name,
            "task_type": kind,
            "metric": dataset.metric,
            "instruction": instruction_of(dataset),
            "split": dataset.split,
            "subset": "",
            "description": metadata.description,
            "relevance": "as published",
            "licences": (str(metadata.license),),
            "queries": queries,
            "pool": pool,
        }
    )


def _load(task: AbsTaskRetrieval, split: str) -> Any:  # noqa: ANN401 - mteb's typed dict
    name, path = task.metadata.name, task.metadata.dataset["path"]
    try:
        task.load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)
        return task.dataset["default"][split]
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FoundryError(
            f"The data of {name} can't be read from {path}: {error}",
            hint=f"Run `gme umrb fetch --dataset {name}`, or `gme umrb verify --dataset {name}` if they are there.",
        ) from error


def _apart(copy: Path, load: Callable[..., None]) -> Callable[..., None]:
    """Have a local copy converted beside it, in a folder that its files name, whoever loads it.

    The cache of `datasets` tells local folders apart by name alone: it would go on giving out what was there before.
    """

    def load_apart(**options: Any) -> None:  # noqa: ANN401 - mteb's own
        before = datasets.config.HF_DATASETS_CACHE
        datasets.config.HF_DATASETS_CACHE = copy.parent / CONVERTED / f"{copy.name}-{files_stamp(copy)}"
        try:
            load(**options)
        finally:
            datasets.config.HF_DATASETS_CACHE = before

    return load_apart


def files_stamp(*folders: Path) -> str:
    """Names the state of folders, by the paths, sizes and times of the files below them."""
    stats = [
        (path.relative_to(folder).as_posix(), path.stat())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])[:12]


def _same(queries: pa.Array, docs: pa.Array) -> Ints:
    """[q] the document of the same id, -1 if there is none."""
    return np.asarray(pc.fill_null(pc.index_in(queries, value_set=docs), -1).to_numpy(), dtype=np.int64)


def _candidates(ranked: dict[str, Iterable[str]], queries: pa.Array, docs: pa.Array) -> tuple[Ints, ...]:
    return tuple(
        np.asarray(
            pc.drop_null(pc.index_in(pa.array(list(ranked.get(query, ())), pa.string()), value_set=docs)).to_numpy(),
            dtype=np.int64,
        )
        for query in queries.to_pylist()
    )
