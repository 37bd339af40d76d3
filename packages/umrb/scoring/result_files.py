"""Result files: mteb's JSON, where its cache looks for it, with a record beside its scores that mteb has no fields for.

Each task has one file, ``<task>.json`` in the folder of a system, which is written last and atomically: it exists if
and only if the task is scored. mteb is imported for tasks of its own alone. Knows no model and no table.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.scores import TaskScore
from gme_data.settings import Frozen
from gme_data.structured import StructureError, parse_json, read_regular

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.models.model_meta import ModelMeta

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
KINDS = ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")
MTEB_METRICS = tuple(f"{kind}_at_{cutoff}" for kind in KINDS for cutoff in CUTOFFS)
"""Metrics that mteb writes of a retrieval task, with nAUC of all but the hit rates; see `umrb.scoring.abstention`."""
MTEB_DEPTH = max(CUTOFFS)
"""Documents per query that a search must return for these metrics."""
_LIBRARIES = ("mteb", "torch", "transformers", "datasets", "faiss-cpu", "numpy")


class TaskRecord(Frozen):
    """The record of one task's score besides mteb's fields: all that a table or a comparison needs."""

    model: str
    """Name of the model."""
    revision: str
    """Revision of the model, which names its weights and settings."""
    score: TaskScore
    """Headline metric with its interval, and all others."""
    prompt: str | None
    """Instruction of the queries."""
    licences: tuple[str, ...] = ()
    """Licences of the data."""
    data_revision: str
    """Pinned revision of the data."""
    data_version: str = ""
    """State of the data, see `umrb.data.loading.data_version`; if it changes, the task is scored again."""
    data_digest: str = ""
    """Digest of what was read: ids, contents and judgements."""
    source: str
    """Where the data were read."""
    defects: tuple[str, ...]
    """Defects of the data, a line each. A score in spite of defects can't be compared."""
    encoded: int
    """Contents that were encoded for the task, by any process; the others were in the store."""
    seconds: float | None = None
    """Wall time, nearly all of which is encoding; null in an output that has the same bytes at every run."""
    versions: dict[str, str]
    """Versions of the libraries that the score depends on."""

    suite: str = Field("", exclude=True)
    """Suite in a file of an earlier version, which has it beside the score."""
    dataset: str = Field("", exclude=True)
    """Dataset in a file of an earlier version."""

    @model_validator(mode="after")
    def _move_row_into_score(self) -> Self:
        # Results of an earlier version took hours to compute, so they stay readable.
        if self.dataset:
            row = {"suite": self.suite, "dataset": self.dataset}
            object.__setattr__(self, "score", self.score.model_copy(update=row))
        return self


class _ResultFile(BaseModel):
    """The part of a result file that is read here; the other fields are mteb's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    umrb: TaskRecord | None = None


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a score depends on."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def results_folder(folder: Path, meta: ModelMeta) -> Path:
    """Return the folder of a model's results in mteb's cache in `folder`: ``results/<model>/<revision>``."""
    import mteb

    return Path(mteb.ResultCache(folder).get_task_result_path("task", meta)).parent


def write_result(path: Path, task: AbsTask | None, record: TaskRecord, split: str, naucs: Mapping[str, float]) -> None:
    """Write a result file.

    Args:
        path: Path of the file.
        task: The task in mteb; None for tasks that mteb does not have.
        record: The record besides mteb's fields.
        split: The split that was scored.
        naucs: See `umrb.scoring.abstention`.
    """
    score = record.score
    values = {name: score.scores[name] for name in MTEB_METRICS if name in score.scores}
    # nAUC is NaN where all queries have equal scores, and NaN is no JSON.
    values |= {
        **{name: value for name, value in naucs.items() if math.isfinite(value)},
        "main_score": score.value,
    }
    if "recall_at_1" in score.scores:
        values["accuracy"] = score.scores["recall_at_1"]
    if task is not None:
        from mteb.results import TaskResult

        # mteb's main score may be another metric than the headline metric of the paper.
        values["main_score"] = score.scores.get(task.metadata.main_score, score.value)
        result = TaskResult.from_task_results(task, {split: {"default": values}}, record.seconds or 0.0)
        payload = {**result.model_dump(mode="json"), "evaluation_time": record.seconds}
    else:
        # The fields that mteb's cache requires, for a task that it has no class for.
        version = record.versions["mteb"]
        entry = {**values, "hf_subset": "default", "languages": ["eng-Latn"], "mteb_version": version}
        payload = {
            "dataset_revision": record.data_revision,
            "task_name": score.name,
            "mteb_version": version,
            "scores": {split: [entry]},
            "evaluation_time": record.seconds,
        }
    dated = {"date": datetime.now(UTC).timestamp() if record.seconds is not None else None}
    payload |= {**dated, "umrb": record.model_dump(mode="json")}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode())


def write_meta(folder: Path, meta: ModelMeta) -> None:
    """Write mteb's ``model_meta.json`` beside the results of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model_meta.json", (json.dumps(meta.to_dict(), indent=1, default=str) + "\n").encode())


def read_result(path: Path) -> TaskRecord | None:
    """Read the record of a result file; None if there is no file, or if mteb wrote it.

    Raises:
        FoundryError: The file is unreadable.
    """
    try:
        data = read_regular(path)
        # Files that mteb wrote may hold NaN, which is no JSON, so they are not parsed.
        return None if b'"umrb"' not in data else parse_json(data, _ResultFile, where=str(path)).umrb
    except FileNotFoundError:
        return None
    except StructureError as error:
        raise FoundryError(f"Unreadable result: {error}", hint="Delete it and run the task again.") from error


def read_results(folder: Path) -> list[TaskRecord]:
    """Read all records in the folder of a model, in the order of the tasks' names.

    Raises:
        FoundryError: There is no record, or one is unreadable.
    """
    records = [record for path in sorted(folder.glob("*.json")) if (record := read_result(path)) is not None]
    if not records:
        raise FoundryError(f"No results in {folder}.", hint="Score the model first: `gme umrb run`.")
    return records
