"""Registers the model of a finished run: decides, records the run, registers at most once, moves the aliases.

All of it happens under the registry's lock, and the champion is read inside it. It is idempotent and may be killed at
any moment: a run is identified by its record key and a model by its content digest, and what an earlier process made
under them is adopted. The run is closed last, so a run that is open is gone through again from the start.
"""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.manifest import damage
from gme_data.redact import redact, redact_value
from gme_data.structured import read_json
from gme_release.config import ReleaseConfig
from gme_release.gate.decision import cost_of, decide
from gme_release.gate.policy import Gate, load_policy
from gme_release.gate.query_scores import ModelScores, scores_of
from gme_release.gate.verdict import Verdict
from gme_release.locks import writer_lock
from gme_release.registry.provenance import with_used_config
from gme_release.run_facts import RunFacts, record_key
from gme_release.tracking.tags import BYTES, MODEL_DIGEST, RECORD

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_LOGGER = logging.getLogger(__name__)
_CHECKS = "gate/checks.json"
_MAX_TAG = 4000
"""Characters of the tag with the gate's reasons; MLflow takes 8,000."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What `register` did, or had done before.

    Attributes:
        run_id: The MLflow run.
        verdict: The gate's decision.
        version: The model's version; None if the gate stayed closed and the model was never registered before.
        created: Whether this call created the version.
        champion: The version that has the champion's alias now, if any.
    """

    run_id: str
    verdict: Verdict
    version: str | None
    created: bool
    champion: str | None


def register(workspace: Path, config: ReleaseConfig, facts: RunFacts) -> Registration:
    """Records the run in MLflow and, if the gate is open, registers its model and makes it champion.

    A run that was recorded before changes nothing: in particular it does not take the alias back from a later model.
    The record has the configuration with which each step was made, which may differ from the present one.

    Raises:
        FoundryError: The model's files differ from their manifest, the model was made from other data than lie in the
            workspace, scores or policy can't be read, or another process keeps the registry.
    """
    problems = damage(facts.model, facts.manifests[facts.model_step])
    if problems:
        raise FoundryError(
            f"The model in {facts.model} is not the one that was judged: {'; '.join(problems[:5])}",
            hint="Run `gme pipeline`: it makes the model again.",
        )
    facts, differences = with_used_config(facts)
    for difference in differences:
        _LOGGER.warning("Recorded is what the model was made with: %s", difference)
    gate = Gate.of(load_policy(config.promotion, workspace), config, facts.tasks)
    # MLflow takes more than a second to import, so every function of this module imports it when it is called.
    from gme_release.tracking.client import tracker_errors

    with writer_lock(workspace, "registry"), tracker_errors(workspace):
        return _record_and_register(workspace, config, facts, gate)


def preload_mlflow() -> None:
    """Imports what `register` imports, MLflow's stores included, while the caller waits for something else."""
    for module in (
        "gme_release.registry.baseline",
        "gme_release.registry.versions",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
    ):
        importlib.import_module(module)


def _record_and_register(workspace: Path, config: ReleaseConfig, facts: RunFacts, gate: Gate) -> Registration:
    from gme_release.registry.baseline import log_scores
    from gme_release.registry.versions import ensure_logged_model, link_model, version_by_alias
    from gme_release.tracking.client import get_or_create_experiment, open_client
    from gme_release.tracking.runs import adopt_run, fill_run

    client = open_client(workspace)
    record = record_key(facts, gate.model_dump(mode="json"))
    run = adopt_run(client, get_or_create_experiment(client, workspace, config.experiment), facts, record)
    recorded_before = run.info.status == "FINISHED"
    # A recorded run keeps its verdict: decided anew, it would be compared with a champion that came later.
    verdict = (_recorded_verdict if recorded_before else _decide)(client, run, config, facts, gate)
    model = ensure_logged_model(client, run, facts.model, facts.model_digest, config.model_name)
    if not recorded_before:
        link_model(client, run, model)
        fill_run(client, run, facts, verdict, model.model_id)
        _log_gate(client, run, facts, verdict)
    if not recorded_before and verdict.passed:
        log_scores(client, run, facts)
    version, created = _ensure_version(client, config.model_name, facts, verdict, model, run)
    if verdict.passed and version is not None:
        _move_aliases(client, config, version, is_new_run=not recorded_before)
    # Last of all: as long as the run is open, the next process goes through every step above again.
    if not recorded_before:
        client.set_terminated(run.info.run_id, "FINISHED")
    champion = version_by_alias(client, config.model_name, config.champion)
    champion_version = None if champion is None else str(champion.version)
    if verdict.passed:
        _LOGGER.info(
            "Model %s %s %s version %s; champion: %s",
            verdict.model_digest[:12],
            "registered as" if created else "was registered before as",
            config.model_name,
            version,
            champion_version,
        )
    else:
        _LOGGER.warning("The gate stays closed for model %s: %s", verdict.model_digest[:12], "; ".join(verdict.reasons))
    return Registration(run.info.run_id, verdict, version, created, champion_version)


def _decide(client: MlflowClient, run: Run, config: ReleaseConfig, facts: RunFacts, gate: Gate) -> Verdict:
    """Returns the gate's decision on the model of `facts`, compared with the champion; `run` is not read."""
    from gme_release.registry.baseline import find_baseline, read_baseline

    champion = find_baseline(client, config)

    def load_scores() -> tuple[ModelScores, ModelScores] | None:
        # A model is not compared with itself.
        if champion is None or champion.tags.get(MODEL_DIGEST) == facts.model_digest:
            return None
        return scores_of(facts), read_baseline(client, champion)

    return decide(
        facts.scores,
        gate,
        model_digest=facts.model_digest,
        scored_digest=facts.scored_digest,
        policy_digest=sha256_json(gate.model_dump(mode="json")),
        cost=cost_of(facts),
        load_scores=load_scores,
    )


def _recorded_verdict(client: MlflowClient, run: Run, config: ReleaseConfig, facts: RunFacts, gate: Gate) -> Verdict:
    """Returns the verdict that the run ended with.

    It is decided anew if it can't be read, or if it says open and no version is registered.
    """
    from gme_release.registry.versions import version_by_digest

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, "gate/verdict.json", folder)
            verdict = read_json(Path(path), Verdict)
        is_registered = version_by_digest(client, config.model_name, facts.model_digest) is not None
        if verdict.model_digest == facts.model_digest and (is_registered or not verdict.passed):
            return verdict
    except (OSError, FoundryError):
        _LOGGER.warning("The verdict of run %s can't be read; the gate decides again.", run.info.run_id)
    return _decide(client, run, config, facts, gate)


def _log_gate(client: MlflowClient, run: Run, facts: RunFacts, verdict: Verdict) -> None:
    """Logs the checks as a table and the configuration as a file, which people look for on the page of a run."""
    rows = redact_value([[check.name, check.passed, check.detail] for check in verdict.checks])
    # The form of MLflow's own `log_table`, which is not used: it would append to what a killed process wrote.
    client.log_dict(run.info.run_id, {"columns": ["check", "passed", "detail"], "data": rows}, _CHECKS)
    client.set_tag(run.info.run_id, "mlflow.loggedArtifacts", json.dumps([{"path": _CHECKS, "type": "table"}]))
    client.log_dict(run.info.run_id, redact_value(facts.config), "config.json")
    client.set_tag(run.info.run_id, "gme.gate.reasons", redact("; ".join(verdict.reasons))[:_MAX_TAG] or "none")


def _move_aliases(client: MlflowClient, config: ReleaseConfig, version: str, *, is_new_run: bool) -> None:
    """Gives `version` the aliases; a run that was recorded before only becomes champion where there is none."""
    from gme_release.registry.versions import set_champion_alias, version_by_alias

    champion = version_by_alias(client, config.model_name, config.champion)
    if is_new_run:
        client.set_registered_model_alias(config.model_name, config.candidate, version)
    if config.promote and (is_new_run or champion is None):
        set_champion_alias(client, version, config, None if champion is None else str(champion.version))


def _ensure_version(
    client: MlflowClient, name: str, facts: RunFacts, verdict: Verdict, model: LoggedModel, run: Run
) -> tuple[str | None, bool]:
    """Returns ``(version, whether it was created now)``; the version is None behind a closed gate."""
    from gme_release.registry.versions import create_version, version_by_digest

    version = version_by_digest(client, name, facts.model_digest)
    if version is not None:
        return str(version.version), False
    if not verdict.passed:
        return None, False
    tags = {
        MODEL_DIGEST: facts.model_digest,
        RECORD: run.data.tags[RECORD],
        "gme.gate": "open",
        "gme.policy": verdict.policy_digest,
        **{f"{BYTES}{folder.path}": folder.md5 for folder in facts.versions.folders},
    }
    return str(create_version(client, name, model, run, facts.workspace, tags).version), True
