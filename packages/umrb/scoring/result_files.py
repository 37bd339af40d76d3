"""Result files: the JSON of mteb, where its cache looks for it, with what mteb has no field for beside its scores.

One file a task, ``<task>.json`` in the folder of a system, written last and whole: it is there if and only if the task
is scored. mteb itself is imported for tasks of its own alone. Knows no model and no table.
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
"""What mteb writes of a retrieval task, with an nAUC of each but the hit rates; see `umrb.scoring.abstention`."""
MTEB_DEPTH = max(CUTOFFS)
"""Documents that a search must return for them."""
_VERSIONS = ("mteb", "torch", "transformers", "datasets", "faiss-cpu", "numpy")


class TaskRecord(Frozen):
    """What is known of one task's score besides mteb's fields; all that a table or a comparison needs."""

    model: str
    """Name of the model."""
    revision: str
    """Of the model: names weights and settings."""
    score: TaskScore
    """Headline metric with its interval, and all others."""
    prompt: str | None
    """Put before each query."""
    licences: tuple[str, ...] = ()
    """Of the data."""
    data_revision: str
    """Of the data, as pinned."""
    data_version: str = ""
    """Of the data as they lay, see `umrb.data.loading.data_version`: with another one the task is scored again."""
    data_digest: str = ""
    """Of what was read: ids, contents and judgements."""
    source: str
    """Where the data were read."""
    defects: tuple[str, ...]
    """What integrity found. A score in spite of defects does not compare."""
    encoded: int
    """Contents that had to be encoded for it, by whichever processes; the others were there."""
    seconds: float | None = None
    """Wall time, of which encoding is nearly all; null in an output that is the same at every run."""
    versions: dict[str, str]
    """Of the libraries."""

    suite: str = Field("", exclude=True)
    """Of an earlier version's file, which has it beside the score."""
    dataset: str = Field("", exclude=True)
    """Likewise."""

    @model_validator(mode="after")
    def _names_its_row_in_the_score(self) -> Self:
        """Results of hours of work stay readable."""
        if self.dataset:
            row = {"suite": self.suite, "dataset": self.dataset}
            object.__setattr__(self, "score", self.score.model_copy(update=row))
        return self


class _File(BaseModel):
    """A result file; its other fields are mteb's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    umrb: TaskRecord | None = None


def versions() -> dict[str, str]:
    """Of the libraries that a score depends on."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def results_folder(folder: Path, meta: ModelMeta) -> Path:
    """Where mteb's cache in `folder` looks for the results of a model: ``results/<model>/<revision>``."""
    import mteb

    return Path(mteb.ResultCache(folder).get_task_result_path("task", meta)).parent


def write_result(path: Path, task: AbsTask | None, record: TaskRecord, split: str, naucs: Mapping[str, float]) -> None:
    """Write the file.

    Args:
        path: The file.
        task: mteb's own; None for tasks that mteb does not have.
        record: What is written besides mteb's fields.
        split: That was scored.
        naucs: See `umrb.scoring.abstention`.
    """
    score = record.score
    values = {name: score.scores[name] for name in MTEB_METRICS if name in score.scores}
    # Where all queries are equally sure there is none: NaN, which is no JSON.
    values |= {
        **{name: value for name, value in naucs.items() if math.isfinite(value)},
        "main_score": score.value,
    }
    if "recall_at_1" in score.scores:
        values["accuracy"] = score.scores["recall_at_1"]
    if task is not None:
        from mteb.results import TaskResult

        values["main_score"] = score.scores.get(task.metadata.main_score, score.value)
        result = TaskResult.from_task_results(task, {split: {"default": values}}, record.seconds or 0.0)
        payload = {**result.model_dump(mode="json"), "evaluation_time": record.seconds}
    else:
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
    """``model_meta.json`` beside the results of a model, as mteb has it."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model_meta.json", (json.dumps(meta.to_dict(), indent=1, default=str) + "\n").encode())


def read_result(path: Path) -> TaskRecord | None:
    """The record of a file; None if there is no file, or if mteb wrote it.

    Raises:
        FoundryError: It is there but unreadable.
    """
    try:
        data = read_regular(path)
        # Those that mteb wrote may hold NaN, which is no JSON.
        return None if b'"umrb"' not in data else parse_json(data, _File, where=str(path)).umrb
    except FileNotFoundError:
        return None
    except StructureError as error:
        raise FoundryError(f"Unreadable result: {error}", hint="Delete it and run the task again.") from error


def read_results(folder: Path) -> list[TaskRecord]:
    """All records of one model's folder, by name.

    Raises:
        FoundryError: There is none, or one is unreadable.
    """
    found = [record for path in sorted(folder.glob("*.json")) if (record := read_result(path)) is not None]
    if not found:
        raise FoundryError(f"No results in {folder}.", hint="Score the model first: `gme umrb run`.")
    return found
