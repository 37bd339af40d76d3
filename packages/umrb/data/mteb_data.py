"""Loads tasks of mteb by mteb's own classes, and numbers them.

Data come from a folder that `fetch` filled or, where there is none, from wherever mteb finds them. Knows mteb's tasks;
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
"""Folder beside local copies for the Arrow files that `datasets` converts them to; it may be deleted at any time."""

_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
)
"""Errors that mteb and `datasets` raise for files that are missing, damaged or of another shape. For an empty corpus
mteb raises an IndexError."""

datasets.disable_progress_bars()


def local_copy(folder: Path, repository: str) -> Path:
    """Return the folder in which `fetch` puts a dataset repository."""
    return folder / repository.replace("/", "--")


def mteb_task(name: str, folder: Path | None = None) -> AbsTaskRetrieval:
    """Return a task of mteb that reads from a local copy below `folder`, if there is one.

    Raises:
        FoundryError: mteb has no such retrieval task, or the local copy holds files that were not fetched.
    """
    try:
        # A new instance: mteb hands out one for all callers, which keeps the data that it loaded.
        task = type(mteb.get_task(name))()
    except KeyError as error:
        raise FoundryError(f"mteb {mteb.__version__} has no task '{name}'.", hint="Install the pinned mteb.") from error
    if not isinstance(task, AbsTaskRetrieval) or task.skip_first_result:
        raise FoundryError(f"The task {name} of mteb is no retrieval task that can be run here.")
    copy = local_copy(folder, task.metadata.dataset["path"]) if folder else None
    if folder is not None and copy is not None and copy.is_dir():
        require_as_fetched(folder, task.metadata.dataset["path"], copy)
        source = {**task.metadata.dataset, "path": str(copy)}
        task.metadata = task.metadata.model_copy(update={"dataset": source})
        task.load_data = _with_own_cache(copy, task.load_data)  # type: ignore[method-assign] # of this instance alone
    return task


def load_mteb(
    task: AbsTaskRetrieval, dataset: Dataset, *, frames: int = 1, cache: Path | None = None
) -> tuple[NumberedTask, Qrels]:
    """Load a task's data and number them.

    Args:
        task: See `mteb_task`.
        dataset: Row of the registry that names its metric, split and instruction.
        frames: Frames of a video that make up its item.
        cache: Folder for the digests of contents. Its files are named by the files of a local copy or else by the
            pinned revision, so that digests of other data are never taken.

    Returns:
        The task, and its judgements as published, for the check of its integrity.

    Raises:
        FoundryError: The data are missing, or lack a column or a split.
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
        # Queries are documents of the pool too, and must not find themselves.
        own_document = pc.fill_null(pc.index_in(queries.ids, value_set=docs.ids), -1)
        numbered = replace(numbered, excluded=np.asarray(own_document.to_numpy(), dtype=np.int64))
    if split["top_ranked"]:
        # A reranking task, which names the documents that each query ranks.
        numbered = replace(numbered, candidates=_candidate_rows(split["top_ranked"], queries.ids, docs.ids))
    return numbered, qrels


def local_version(task: AbsTaskRetrieval) -> str:
    """Name the present state of a task's data: the files of a local copy, or else the pinned revision."""
    copy = Path(task.metadata.dataset["path"])
    return files_stamp(copy) if copy.is_dir() else str(task.metadata.dataset["revision"])[:12]


def as_benchmark(suite: str = "umrb") -> Benchmark:
    """Return a suite as a benchmark of mteb, for `mteb.evaluate`, without the datasets that mteb does not have.

    Its headline metrics are mteb's own; those of the paper, see the registry, are among the scores of each task.
    """
    names = [task for dataset in load_suite(suite) if dataset.source == "mteb" for task in dataset.tasks]
    return Benchmark(
        name=suite.upper(),
        tasks=[mteb_task(name) for name in names],
        description="Universal multimodal retrieval, as in arXiv:2412.16855.",
        reference="https://arxiv.org/abs/2412.16855",
    )


def expected_sizes(task: AbsTaskRetrieval, dataset: Dataset, rows: int) -> tuple[int | None, int | None]:
    """Return how many queries and documents a task should have; None where no number is known.

    The paper rounds its numbers, and for some datasets counts judgements instead of queries. So a task whose `rows`,
    queries and documents together, equal the sum in mteb's statistics is taken as complete.
    """
    statistics: dict[str, Any] = dict((task.metadata.descriptive_stats or {}).get(dataset.split) or {})
    if rows == statistics.get("num_samples"):
        return None, None
    if len(dataset.tasks) == 1:
        return dataset.queries, dataset.candidates
    return statistics.get("num_queries"), statistics.get("num_documents")


def instruction_of(dataset: Dataset) -> str | None:
    """Return the instruction of a dataset's queries with the full stop that the authors' own wrapper appends."""
    text = dataset.instruction
    return text if text is None or text.endswith(".") else f"{text}."


def task_card(metadata: TaskMetadata, dataset: Dataset, queries: int, pool: int) -> TaskCard:
    """Make the card of a task of mteb: name and licence are mteb's; type, metric and instruction the registry's."""
    return TaskCard.model_validate(
        {
            "name": metadata.name,
            "task_type": dataset.task_type,
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
            # An error of the system, such as a full disk, is no fault of the data.
            raise
        raise FoundryError(
            f"The data of {name} can't be read from {path}: {error}",
            hint=f"Run `gme umrb fetch --dataset {name}`, or `gme umrb verify --dataset {name}` if they are there.",
        ) from error


def _with_own_cache(copy: Path, load: Callable[..., None]) -> Callable[..., None]:
    """Wrap `load` so that `datasets` converts a local copy into a folder that is named by the copy's files."""

    # The shared cache of `datasets` tells local folders apart by name alone: it would go on serving the old contents
    # of a copy that changed.
    def load_with_own_cache(**options: Any) -> None:  # noqa: ANN401 - mteb's own
        shared_cache = datasets.config.HF_DATASETS_CACHE
        datasets.config.HF_DATASETS_CACHE = copy.parent / CONVERTED / f"{copy.name}-{files_stamp(copy)}"
        try:
            load(**options)
        finally:
            datasets.config.HF_DATASETS_CACHE = shared_cache

    return load_with_own_cache


def files_stamp(*folders: Path) -> str:
    """Name the state of folders by the paths, sizes and times of the files below them."""
    stats = [
        (path.relative_to(folder).as_posix(), path.stat())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])[:12]


def _candidate_rows(ranked: dict[str, Iterable[str]], queries: pa.Array, docs: pa.Array) -> tuple[Ints, ...]:
    """Document numbers of each query's candidates; ids without a document are dropped."""
    return tuple(
        np.asarray(
            pc.drop_null(pc.index_in(pa.array(list(ranked.get(query, ())), pa.string()), value_set=docs)).to_numpy(),
            dtype=np.int64,
        )
        for query in queries.to_pylist()
    )
