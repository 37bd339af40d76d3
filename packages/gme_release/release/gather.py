"""Gathers the facts of a version for its release: run, manifests, scores, verdict and data, by MLflow's API.

Writes nothing but a temporary folder. Data must lie in the workspace as the run left them (`dvc pull`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict

from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, damage, read_manifest
from gme_data.scores import read_report_scores
from gme_data.structured import StructureError, read_json, read_yaml
from gme_release.gate.verdict import Verdict
from gme_release.registry.versions import digest_of
from gme_release.release.record import DatasetRecord
from gme_release.tracking.tags import MODEL_DIGEST

_LICENCE = "licence"
"""Column of tables that names the licence of an item."""
_MAX_BYTES = 2**30
"""The most that is read of a file: the manifest of millions of files has hundreds of megabytes."""
T = TypeVar("T")


class _TaskInstruction(BaseModel):
    """The fields of ``task.yaml`` that a release records."""

    model_config = ConfigDict(frozen=True)

    name: str
    instruction: str | None


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What tracker and workspace know of a version.

    Attributes:
        manifests: Manifest by name of the step.
        instructions: Instruction before queries, by name of the task.
    """

    version: ModelVersion
    run: Run
    config: dict[str, Any]
    scores: dict[str, Any]
    verdict: dict[str, Any]
    manifests: Mapping[str, Manifest]
    datasets: tuple[DatasetRecord, ...]
    instructions: dict[str, str | None]


def find_run(
    client: MlflowClient, version: ModelVersion, require_same_code: Callable[[Mapping[str, str]], None]
) -> Run:
    """Returns the newest run that made exactly this model and for which `require_same_code` does not raise.

    The version names the first run that made the model. Where the code changed and the bytes did not, a later run made
    the same model again, and the code that is checked out is that run's.

    Raises:
        FoundryError: The error of `require_same_code` for the newest run, if it raises for all; or the run was recorded
            incompletely.
    """
    first_error: FoundryError | None = None
    for run in _runs(client, version):
        try:
            require_same_code({name: manifest.code for name, manifest in _manifests(client, run).items()})
        except FoundryError as error:
            first_error = first_error or error
        else:
            return run
    raise first_error or FoundryError(f"No run is recorded for version {version.version} of {version.name}.")


def gather(client: MlflowClient, version: ModelVersion, run: Run, workspace: Path, scratch: Path) -> ReleaseFacts:
    """Collects the facts of `version`, which `run` made; artifacts are downloaded to `scratch`.

    Raises:
        FoundryError: The run was recorded incompletely, or a dataset of the workspace is not the run's.
    """
    artifacts = Path(client.download_artifacts(run.info.run_id, "", str(scratch)))
    manifests = {path.stem: _manifest(path) for path in sorted(artifacts.glob("manifests/*.json"))}
    datasets = tuple(_datasets(run, manifests, workspace))
    return ReleaseFacts(
        version,
        run,
        _read_artifact(artifacts / "config.json", dict[str, Any]),
        read_report_scores(artifacts / "report").model_dump(mode="json"),
        _read_artifact(artifacts / "gate" / "verdict.json", Verdict).to_json(),
        manifests,
        datasets,
        dict(_instructions(workspace / dataset.path for dataset in datasets)),
    )


def seeds_in(config: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Returns every field named ``seed``, by its path."""
    seeds: dict[str, int] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            seeds |= seeds_in(value, f"{prefix}{name}.")
        elif name == "seed" and isinstance(value, int):
            seeds[f"{prefix}{name}"] = value
    return seeds


def _runs(client: MlflowClient, version: ModelVersion) -> list[Run]:
    """Returns the finished runs of this model with an open gate, newest first; else the one that the version names."""
    query = f"tags.`{MODEL_DIGEST}` = '{digest_of(version)}' and tags.`gme.gate` = 'open'"
    first = client.get_run(str(version.run_id))
    runs = client.search_runs(
        [first.info.experiment_id],
        f"{query} and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return list(runs) or [first]


def _manifests(client: MlflowClient, run: Run) -> dict[str, Manifest]:
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = Path(client.download_artifacts(run.info.run_id, "manifests", scratch))
        return {path.stem: _manifest(path) for path in sorted(artifacts.glob("*.json"))}


def _datasets(run: Run, manifests: Mapping[str, Manifest], workspace: Path) -> Iterator[DatasetRecord]:
    for item in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in item.tags}
        path, manifest = item.dataset.name, manifests.get(tags.get("step", ""))
        if manifest is None:
            raise FoundryError(
                f"The run was recorded incompletely: nothing says which step made its dataset {path}.",
                hint="Run `gme pipeline` again; it completes the record.",
            )
        # Checked against the run's manifest, not the folder's own: the workspace may hold a later run's data.
        is_there = read_manifest(workspace / path) is not None
        problems = damage(workspace / path, manifest) if is_there else ["missing"]
        if problems:
            raise FoundryError(
                f"{workspace / path} is not the dataset of run {run.info.run_id}: {'; '.join(problems[:3])}",
                hint="Check out the commit of the run and `dvc pull`, or run `gme pipeline` again and release that.",
            )
        yield DatasetRecord(
            step=tags["step"],
            path=path,
            content=manifest.content,
            dvc=item.dataset.digest,
            bytes=sum(entry.bytes for entry in manifest.files),
            licences=tuple(sorted(_licences(workspace / path, manifest))),
        )


def _manifest(path: Path) -> Manifest:
    manifest = _read_artifact(path, Manifest)
    if manifest.content != content_digest(manifest.files):
        raise FoundryError(f"The run's manifest {path.name} is damaged: its digest is not that of its files.")
    return manifest


def _licences(folder: Path, manifest: Manifest) -> set[str]:
    """Returns every value of a column ``licence`` in the tables of a dataset; no other column is read."""
    licences: set[str] = set()
    for entry in manifest.files:
        path = folder / entry.path
        # The schema first, which is in the footer of the file.
        if path.suffix == ".parquet" and _LICENCE in pq.read_schema(path).names:
            licences |= set(pq.read_table(path, columns=[_LICENCE])[_LICENCE].unique().to_pylist()) - {None, ""}
    return licences


def _instructions(folders: Iterator[Path]) -> Iterator[tuple[str, str | None]]:
    for folder in folders:
        for path in sorted(folder.glob("tasks/test/*/task.yaml")):
            task = read_yaml(path, _TaskInstruction)
            yield task.name, task.instruction


def _read_artifact(path: Path, kind: type[T]) -> T:
    try:
        return read_json(path, kind, max_bytes=_MAX_BYTES)
    except (FileNotFoundError, StructureError) as error:
        reason = error.reason if isinstance(error, StructureError) else "it is missing"
        raise FoundryError(
            f"The run was recorded incompletely: {path.name} can't be read ({reason}).",
            hint="Run `gme pipeline` again; it completes the record.",
        ) from error
