"""From a registered version to the facts of its release: run, manifests, scores, verdict, data, through MLflow's API.

Reads; writes nothing but a temporary folder. Data must lie in the workspace as the run left them (`dvc pull`).
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
from gme_release.registry import digest_of
from gme_release.release.record import Dataset
from gme_release.tracking import MODEL_DIGEST
from gme_release.verdict import Verdict

_LICENCE = "licence"
_LARGEST = 2**30
"""A manifest of millions of files has hundreds of megabytes."""
T = TypeVar("T")


class _TaskCard(BaseModel):
    """What a release says of a task; `task.yaml` has more."""

    model_config = ConfigDict(frozen=True)

    name: str
    instruction: str | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the tracker and the workspace know of a version.

    Attributes:
        manifests: By step.
        instructions: By task.
    """

    version: ModelVersion
    run: Run
    config: dict[str, Any]
    scores: dict[str, Any]
    verdict: dict[str, Any]
    manifests: Mapping[str, Manifest]
    datasets: tuple[Dataset, ...]
    instructions: dict[str, str | None]


def run_of(client: MlflowClient, version: ModelVersion, same_code: Callable[[Mapping[str, str]], None]) -> Run:
    """The run to release `version` from: the newest of those that made exactly this model and that `same_code` takes.

    The version itself names the first of them for ever. Where code changed and the bytes did not, a later run made the
    same model again, and the code that is checked out is that run's.

    Raises:
        FoundryError: What `same_code` says of the newest, if it takes none; or the run was recorded incompletely.
    """
    refused: FoundryError | None = None
    for run in _runs(client, version):
        try:
            same_code({name: manifest.code for name, manifest in _manifests(client, run).items()})
        except FoundryError as error:
            refused = refused or error
        else:
            return run
    raise refused or FoundryError(f"No run is recorded for version {version.version} of {version.name}.")


def gather(client: MlflowClient, version: ModelVersion, run: Run, workspace: Path, scratch: Path) -> Gathered:
    """Collect the facts of `version`, which `run` made.

    Raises:
        FoundryError: The run was recorded incompletely, or a dataset of the workspace is not the run's.
    """
    home = Path(client.download_artifacts(run.info.run_id, "", str(scratch)))
    manifests = {path.stem: _manifest(path) for path in sorted(home.glob("manifests/*.json"))}
    datasets = tuple(_datasets(run, manifests, workspace))
    return Gathered(
        version,
        run,
        _recorded(home / "config.json", dict[str, Any]),
        read_report_scores(home / "report").model_dump(mode="json"),
        _recorded(home / "gate" / "verdict.json", Verdict).to_json(),
        manifests,
        datasets,
        dict(_instructions(workspace / dataset.path for dataset in datasets)),
    )


def seeds_in(config: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Every field named ``seed``, by its path."""
    found: dict[str, int] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= seeds_in(value, f"{prefix}{name}.")
        elif name == "seed" and isinstance(value, int):
            found[f"{prefix}{name}"] = value
    return found


def _runs(client: MlflowClient, version: ModelVersion) -> list[Run]:
    """Finished runs whose model this is and whose gate was open, newest first; else the one that the version names."""
    made_it = f"tags.`{MODEL_DIGEST}` = '{digest_of(version)}' and tags.`gme.gate` = 'open'"
    first = client.get_run(str(version.run_id))
    found = client.search_runs(
        [first.info.experiment_id],
        f"{made_it} and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return list(found) or [first]


def _manifests(client: MlflowClient, run: Run) -> dict[str, Manifest]:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(client.download_artifacts(run.info.run_id, "manifests", scratch))
        return {path.stem: _manifest(path) for path in sorted(home.glob("*.json"))}


def _datasets(run: Run, manifests: Mapping[str, Manifest], workspace: Path) -> Iterator[Dataset]:
    for item in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in item.tags}
        path, manifest = item.dataset.name, manifests.get(tags.get("step", ""))
        if manifest is None:
            raise FoundryError(
                f"The run was recorded incompletely: nothing says which step made its dataset {path}.",
                hint="Run `gme pipeline` again; it completes the record.",
            )
        found = read_manifest(workspace / path)
        problems = damage(workspace / path, manifest) if found else ["missing"]
        if problems:
            raise FoundryError(
                f"{workspace / path} is not the dataset of run {run.info.run_id}: {'; '.join(problems[:3])}",
                hint="Check out the commit of the run and `dvc pull`, or run `gme pipeline` again and release that.",
            )
        yield Dataset(
            step=tags["step"],
            path=path,
            content=manifest.content,
            dvc=item.dataset.digest,
            bytes=sum(entry.bytes for entry in manifest.files),
            licences=tuple(sorted(_licences(workspace / path, manifest))),
        )


def _manifest(path: Path) -> Manifest:
    manifest = _recorded(path, Manifest)
    if manifest.content != content_digest(manifest.files):
        raise FoundryError(f"The run's manifest {path.name} is damaged: its digest is not that of its files.")
    return manifest


def _licences(folder: Path, manifest: Manifest) -> set[str]:
    """Every value of a column ``licence`` in the tables of a dataset; that column alone is read."""
    found: set[str] = set()
    for entry in manifest.files:
        path = folder / entry.path
        if path.suffix == ".parquet" and _LICENCE in pq.read_schema(path).names:
            found |= set(pq.read_table(path, columns=[_LICENCE])[_LICENCE].unique().to_pylist()) - {None, ""}
    return found


def _instructions(folders: Iterator[Path]) -> Iterator[tuple[str, str | None]]:
    for folder in folders:
        for path in sorted(folder.glob("tasks/test/*/task.yaml")):
            card = read_yaml(path, _TaskCard)
            yield card.name, card.instruction


def _recorded(path: Path, kind: type[T]) -> T:
    try:
        return read_json(path, kind, max_bytes=_LARGEST)
    except (FileNotFoundError, StructureError) as error:
        reason = error.reason if isinstance(error, StructureError) else "it is missing"
        raise FoundryError(
            f"The run was recorded incompletely: {path.name} can't be read ({reason}).",
            hint="Run `gme pipeline` again; it completes the record.",
        ) from error
