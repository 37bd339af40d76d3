"""The MLflow database of a workspace and the runs in it.

Everything here can be repeated: a run is found by its record key before it is created, timestamps come from the run's
start and not from the clock, so what a killed process had logged is not logged twice. Knows no model registry.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TypeVar

from gme_data import environment

environment.settle()  # before MLflow is imported: it reads its switches at import
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient, set_tracking_uri  # noqa: E402
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from gme_data.errors import FoundryError  # noqa: E402
from gme_release.dataset_source import dataset_at  # noqa: E402
from gme_release.gate import Verdict  # noqa: E402
from gme_release.records import RunFacts, flat_params, score_metrics, training_curves  # noqa: E402

ROOT = Path("runs/mlflow")
RECORD = "gme.record"
MODEL_DIGEST = "gme.model_digest"
_BATCH = 100  # MLflow takes 100 params or tags and 1,000 metrics in one call
T = TypeVar("T")


def database(workspace: Path) -> Path:
    """The sqlite file of the tracking and registry server."""
    return workspace / ROOT / "mlflow.db"


def open_client(workspace: Path) -> MlflowClient:
    """A client of the workspace's database, made if it is not there. Sets MLflow's tracking URI for this process."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    path = database(workspace).resolve()
    if not path.exists():
        _create_database(path)
    uri = f"sqlite:///{path}"
    set_tracking_uri(uri)
    return MlflowClient(uri, registry_uri=uri)


@contextmanager
def explained(workspace: Path) -> Iterator[None]:
    """Turn what MLflow or its database cannot do (a full disk, a damaged file) into a `FoundryError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise FoundryError(
            f"The records in {database(workspace)} could not be read or written: {first_line}",
            hint="Mend the cause (disk space, permissions) and run the same command again.",
            exit_code=1,
        ) from error


def experiment_of(client: MlflowClient, workspace: Path, name: str) -> str:
    """Id of the experiment `name`, made if needed; its artifacts lie in ``runs/mlflow/artifacts/<name>``."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = (workspace / ROOT / "artifacts" / name).resolve()
    return str(client.create_experiment(name, artifact_location=location.as_uri()))


def adopt_run(client: MlflowClient, experiment_id: str, facts: RunFacts, record: str) -> Run:
    """The run of `record`: the one that was begun or finished before, else a new one.

    Other unfinished runs belong to processes that are dead, because the caller holds the lock; they are closed.
    """
    for stale in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if stale.data.tags.get(RECORD) != record:
            client.set_terminated(stale.info.run_id, "KILLED")
    found = client.search_runs([experiment_id], f"tags.`{RECORD}` = '{record}'", order_by=["attributes.start_time ASC"])
    if found:
        return found[0]
    tags = {RECORD: record, MODEL_DIGEST: facts.model_digest, **facts.tags}
    return client.create_run(experiment_id, run_name=facts.name, tags=tags)


def fill_run(client: MlflowClient, run: Run, facts: RunFacts, verdict: Verdict, model_id: str) -> None:
    """Log params, tags, datasets, training curves, scores, report, manifests and verdict. May be repeated."""
    run_id = run.info.run_id
    for params in _batches(flat_params(facts.config).items(), _BATCH):
        client.log_batch(run_id, params=[Param(name, value) for name, value in params])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _tags(facts, verdict).items()])
    client.log_inputs(run_id, datasets=list(_datasets(facts)))
    for metrics in _batches(_metrics(facts, run.info.start_time, model_id), 10 * _BATCH):
        client.log_batch(run_id, metrics=metrics)
    client.log_artifacts(run_id, str(facts.folder(facts.report_step)), "report")
    for name, manifest in facts.manifests.items():
        client.log_dict(run_id, asdict(manifest), f"manifests/{name}.json")
    client.log_dict(run_id, verdict.to_json(), "gate/verdict.json")


def _create_database(path: Path) -> None:
    """Make the tables in a file aside and rename it: a kill in the middle of the migrations leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}").search_experiments()
    part.rename(path)


def _tags(facts: RunFacts, verdict: Verdict) -> dict[str, str]:
    steps = {f"gme.step.{name}": manifest.key for name, manifest in facts.manifests.items()}
    bytes_ = {f"gme.dvc.{folder.path}": folder.md5 for folder in facts.versions.folders}
    gate = {"gme.gate": "open" if verdict.passed else "closed", "gme.policy": verdict.policy_digest}
    return {**steps, **bytes_, **gate}


def _datasets(facts: RunFacts) -> Iterator[DatasetInput]:
    for step, use in facts.dataset_steps.items():
        if step not in facts.manifests:
            continue
        dataset = dataset_at(facts.outputs[step], facts.versions)
        if dataset is not None:
            tags = {"mlflow.data.context": use, "sha256": facts.manifests[step].content, "step": step}
            yield DatasetInput(dataset._to_mlflow_entity(), [InputTag(name, value) for name, value in tags.items()])


def _metrics(facts: RunFacts, start: int, model_id: str) -> Iterator[Metric]:
    """Scores belong to the model, points of curves to their step. Times are in ms; one a step keeps them in order."""
    for name, step, value in training_curves(facts):
        yield Metric(name, value, start + step, step)
    for name, value in score_metrics(facts.scores).items():
        yield Metric(name, value, start, 0, model_id=model_id)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
