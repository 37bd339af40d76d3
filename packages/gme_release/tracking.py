"""The runs of a pipeline in MLflow: found, adopted, filled.

Everything here can be repeated: a run is found by its record key or by what its follower called it before it is
created, timestamps come from the run's start and not from the clock, so what a killed process had logged is not logged
twice. Knows no model registry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag

from gme_data.redact import redact_value, redacted
from gme_release.dataset_source import dataset_at
from gme_release.delivery import FOLLOWED
from gme_release.gate import Verdict
from gme_release.records import WORKSPACE, RunFacts, flat_params, score_metrics, training_curves, workspace_tag
from gme_release.tracker import database, experiment_of, explained, open_client
from gme_release.trouble import TrackerError

__all__ = [
    "BYTES",
    "FOLLOWED",
    "MODEL_DIGEST",
    "RECORD",
    "WORKSPACE",
    "TrackerError",
    "adopt_run",
    "close_dead_runs",
    "database",
    "experiment_of",
    "explained",
    "fill_run",
    "open_client",
]

RECORD = "gme.record"
MODEL_DIGEST = "gme.model_digest"
BYTES = "gme.dvc."
"""Begin of the tags that name, for each tracked folder, DVC's name of its content."""
_BATCH = 100  # MLflow takes 100 params or tags and 1,000 metrics in one call
T = TypeVar("T")


def adopt_run(client: MlflowClient, experiment_id: str, facts: RunFacts, record: str) -> Run:
    """The run of `record`: the one that was begun or finished before, else the one that followed the work, else a new.

    Other unfinished runs of the workspace belong to processes that are dead, because the caller holds the lock; they
    are closed. So are the steps' runs of this one: the steps are done.
    """
    here, followed = workspace_tag(facts.workspace), facts.tags.get(FOLLOWED)
    for stale in _running(client, [experiment_id], here):
        own = followed is not None and stale.data.tags.get(FOLLOWED) == followed
        if stale.data.tags.get(RECORD) != record and not own:
            client.set_terminated(stale.info.run_id, "KILLED")
    tags = redacted({MODEL_DIGEST: facts.model_digest, WORKSPACE: here, **facts.tags, RECORD: record})
    recorded = _first(client, experiment_id, RECORD, record)
    if recorded is not None:
        return recorded
    opened = _first(client, experiment_id, FOLLOWED, followed) if followed else None
    if opened is not None:
        # The record key last and in the same call: who finds it finds the rest.
        client.log_batch(opened.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return client.get_run(opened.info.run_id)
    return client.create_run(experiment_id, run_name=facts.name, tags=tags)


def close_dead_runs(client: MlflowClient, workspace: Path, alive: Collection[str]) -> None:
    """Close the runs that were opened before the work of a process that is gone, and that nobody follows any more.

    Args:
        client: A client of the workspace's tracker.
        workspace: Whose runs; the caller is the only one that works in it.
        alive: Names of outboxes whose runs go on, or are closed by what waits in them.
    """
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    for run in _running(client, experiments, workspace_tag(workspace)):
        followed = run.data.tags.get(FOLLOWED, "")
        if followed and followed.partition("/")[0] not in alive:
            client.set_terminated(run.info.run_id, "KILLED")


def _running(client: MlflowClient, experiments: list[str], workspace: str) -> list[Run]:
    wanted = f"attributes.status = 'RUNNING' and tags.`{WORKSPACE}` = '{workspace}'"
    return list(client.search_runs(experiments, wanted))


def _first(client: MlflowClient, experiment_id: str, tag: str, value: str) -> Run | None:
    found = client.search_runs(
        [experiment_id], f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"], max_results=1
    )
    return found[0] if found else None


def fill_run(client: MlflowClient, run: Run, facts: RunFacts, verdict: Verdict, model_id: str) -> None:
    """Log params, tags, datasets, training curves, scores, report, manifests and verdict. May be repeated."""
    run_id = run.info.run_id
    for params in _batches(redacted(flat_params(facts.config)).items(), _BATCH):
        client.log_batch(run_id, params=[Param(name, value) for name, value in params])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in redacted(_tags(facts, verdict)).items()])
    client.log_inputs(run_id, datasets=list(_datasets(facts)))
    for metrics in _batches(_metrics(facts, run.info.start_time, model_id), 10 * _BATCH):
        client.log_batch(run_id, metrics=metrics)
    client.log_artifacts(run_id, str(facts.folder(facts.report_step)), "report")
    for name, manifest in facts.manifests.items():
        client.log_dict(run_id, {**asdict(manifest), "config": redact_value(manifest.config)}, f"manifests/{name}.json")
    client.log_dict(run_id, redact_value(verdict.to_json()), "gate/verdict.json")


def _tags(facts: RunFacts, verdict: Verdict) -> dict[str, str]:
    steps = {f"gme.step.{name}": manifest.key for name, manifest in facts.manifests.items()}
    bytes_ = {f"{BYTES}{folder.path}": folder.md5 for folder in facts.versions.folders}
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
