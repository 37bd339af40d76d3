"""The runs of a pipeline in MLflow: looked up, adopted, closed, and filled with all that the pipeline made.

Everything here can be repeated. A run is looked up by its record key, or by the tag that its follower gave it, before
it is created. Timestamps come from the run's start and not from the clock, so that what a killed process had logged is
not logged twice. Knows no model registry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag

from gme_data.batching import batched
from gme_data.redact import redact_value, redacted
from gme_release.gate.verdict import Verdict
from gme_release.run_facts import RunFacts
from gme_release.tracking.batches import MAX_METRICS, MAX_PARAMS
from gme_release.tracking.dataset_source import dataset_at
from gme_release.tracking.run_metrics import flat_params, score_metrics, training_curves
from gme_release.tracking.tags import BYTES, FOLLOWED, MODEL_DIGEST, RECORD, WORKSPACE, workspace_tag


def adopt_run(client: MlflowClient, experiment_id: str, facts: RunFacts, record: str) -> Run:
    """Returns the run to record `facts` in.

    It is the run with the record key `record`, begun or finished before; else the one that followed the work; else a
    new one. Other unfinished runs of the workspace are closed: they belong to processes that are dead, because the
    caller holds the registry's lock. The runs of this pipeline's steps are closed too, because the steps are done.
    """
    workspace, followed = workspace_tag(facts.workspace), facts.tags.get(FOLLOWED)
    for run in _unfinished_runs(client, [experiment_id], workspace):
        is_followed = followed is not None and run.data.tags.get(FOLLOWED) == followed
        if run.data.tags.get(RECORD) != record and not is_followed:
            client.set_terminated(run.info.run_id, "KILLED")
    tags = redacted({MODEL_DIGEST: facts.model_digest, WORKSPACE: workspace, **facts.tags, RECORD: record})
    recorded = _first_run(client, experiment_id, RECORD, record)
    if recorded is not None:
        return recorded
    opened = _first_run(client, experiment_id, FOLLOWED, followed) if followed else None
    if opened is not None:
        # The record key is the last tag of one call: who finds a run by it finds the other tags too.
        client.log_batch(opened.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return client.get_run(opened.info.run_id)
    return client.create_run(experiment_id, run_name=facts.name, tags=tags)


def close_dead_runs(client: MlflowClient, workspace: Path, alive: Collection[str]) -> None:
    """Closes the followed runs of a workspace whose process is gone and that no outbox speaks for any more.

    Args:
        client: A client of the workspace's tracker.
        workspace: The workspace; the caller is the only one that works in it.
        alive: Names of the outboxes whose runs go on, or are closed by a message that waits in them.
    """
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    for run in _unfinished_runs(client, experiments, workspace_tag(workspace)):
        followed = run.data.tags.get(FOLLOWED, "")
        if followed and followed.partition("/")[0] not in alive:
            client.set_terminated(run.info.run_id, "KILLED")


def _unfinished_runs(client: MlflowClient, experiments: list[str], workspace: str) -> list[Run]:
    query = f"attributes.status = 'RUNNING' and tags.`{WORKSPACE}` = '{workspace}'"
    return list(client.search_runs(experiments, query))


def _first_run(client: MlflowClient, experiment_id: str, tag: str, value: str) -> Run | None:
    runs = client.search_runs(
        [experiment_id], f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"], max_results=1
    )
    return runs[0] if runs else None


def fill_run(client: MlflowClient, run: Run, facts: RunFacts, verdict: Verdict, model_id: str) -> None:
    """Logs params, tags, datasets, training curves, scores, report, manifests and verdict. It may be repeated."""
    run_id = run.info.run_id
    for params in batched(redacted(flat_params(facts.config)).items(), MAX_PARAMS):
        client.log_batch(run_id, params=[Param(name, value) for name, value in params])
    tags = {
        **{f"gme.step.{name}": manifest.key for name, manifest in facts.manifests.items()},
        **{f"{BYTES}{folder.path}": folder.md5 for folder in facts.versions.folders},
        "gme.gate": "open" if verdict.passed else "closed",
        "gme.policy": verdict.policy_digest,
    }
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in redacted(tags).items()])
    client.log_inputs(run_id, datasets=list(_dataset_inputs(facts)))
    for metrics in batched(_metrics(facts, run.info.start_time, model_id), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics)
    client.log_artifacts(run_id, str(facts.folder(facts.report_step)), "report")
    for name, manifest in facts.manifests.items():
        client.log_dict(run_id, {**asdict(manifest), "config": redact_value(manifest.config)}, f"manifests/{name}.json")
    client.log_dict(run_id, redact_value(verdict.to_json()), "gate/verdict.json")


def _dataset_inputs(facts: RunFacts) -> Iterator[DatasetInput]:
    for step, use in facts.dataset_steps.items():
        if step not in facts.manifests:
            continue
        dataset = dataset_at(facts.outputs[step], facts.versions)
        if dataset is not None:
            tags = {"mlflow.data.context": use, "sha256": facts.manifests[step].content, "step": step}
            yield DatasetInput(dataset._to_mlflow_entity(), [InputTag(name, value) for name, value in tags.items()])


def _metrics(facts: RunFacts, start_ms: int, model_id: str) -> Iterator[Metric]:
    """Yields the points of curves, which belong to the run, and the scores, which belong to the model.

    The time of a point is the run's start plus one millisecond a step, which keeps the points in order.
    """
    for name, step, value in training_curves(facts):
        yield Metric(name, value, start_ms + step, step)
    for name, value in score_metrics(facts.scores).items():
        yield Metric(name, value, start_ms, 0, model_id=model_id)
