"""From a finished run to a registered model: judge it, record it, register it at most once, move the aliases.

All of it under the registry's lock, the champion read anew inside it. Idempotent and safe to kill at any moment. A run
is identified by its record key, a model by its content digest; what is found under them is adopted. The run is closed
last, so an open one means: go through all of it again.
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
from gme_release.gate import Gate, cost_of, judge, load_policy
from gme_release.locks import writer_lock
from gme_release.provenance import with_used_config
from gme_release.query_scores import ModelScores, scores_of
from gme_release.records import RunFacts, record_key
from gme_release.verdict import Verdict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_LOGGER = logging.getLogger(__name__)
_CHECKS = "gate/checks.json"


@dataclass(frozen=True, slots=True)
class Registration:
    """What `register` found or did.

    Attributes:
        run_id: The MLflow run.
        verdict: The gate's decision.
        version: The model's version; None if the gate stayed closed and it was never registered before.
        created: Whether this call created the version.
        champion: The version that carries the champion's alias now, if any.
    """

    run_id: str
    verdict: Verdict
    version: str | None
    created: bool
    champion: str | None


def register(workspace: Path, config: ReleaseConfig, facts: RunFacts) -> Registration:
    """Record the run in MLflow and, if the gate is open, register its model and make it champion.

    A run that was recorded before changes nothing: in particular it does not take the alias back from a later model.
    The record says with what configuration each step was made, which need not be the one at hand.

    Raises:
        FoundryError: The model's files differ from their manifest, it was made from other data than lie there, scores
            or policy are unreadable, or another process keeps the registry.
    """
    _require_undamaged(facts)
    facts, differences = with_used_config(facts)
    for difference in differences:
        _LOGGER.warning("Recorded is what the model was made with: %s", difference)
    policy = Gate.of(load_policy(config.promotion, workspace), config, facts.tasks)
    from gme_release.tracking import (
        explained,  # MLflow takes more than a second to import; only who records pays for it
    )

    with writer_lock(workspace, "registry"), explained(workspace):
        return _record_and_register(workspace, config, facts, policy)


def import_ahead() -> None:
    """Import what `register` imports, MLflow's stores included: for who has seconds to wait before."""
    for module in (
        "gme_release.baseline",
        "gme_release.registry",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
    ):
        importlib.import_module(module)


def _record_and_register(workspace: Path, config: ReleaseConfig, facts: RunFacts, policy: Gate) -> Registration:
    from gme_release.baseline import keep_scores
    from gme_release.registry import ensure_logged_model, link_model, version_of
    from gme_release.tracking import adopt_run, experiment_of, fill_run, open_client

    client = open_client(workspace)
    policy_json = policy.model_dump(mode="json")
    record = record_key(facts, policy_json)
    run = adopt_run(client, experiment_of(client, workspace, config.experiment), facts, record)
    recorded_before = run.info.status == "FINISHED"
    verdict = _verdict(client, run, config, facts, policy) if recorded_before else _judge(client, config, facts, policy)
    model = ensure_logged_model(client, run, facts.model, facts.model_digest, config.model_name)
    if not recorded_before:
        link_model(client, run, model)
        fill_run(client, run, facts, verdict, model.model_id)
        _note(client, run, facts, verdict)
    if not recorded_before and verdict.passed:
        keep_scores(client, run, facts)
    version, created = _version(client, config.model_name, facts, verdict, model, run)
    if verdict.passed and version is not None:
        _move_aliases(client, config, version, fresh=not recorded_before)
    if not recorded_before:
        client.set_terminated(run.info.run_id, "FINISHED")
    champion = version_of(client, config.model_name, config.champion)
    crowned = None if champion is None else str(champion.version)
    _tell(config.model_name, verdict, version, created, crowned)
    return Registration(run.info.run_id, verdict, version, created, crowned)


def _judge(client: MlflowClient, config: ReleaseConfig, facts: RunFacts, policy: Gate) -> Verdict:
    from gme_release.baseline import find_baseline, read_baseline
    from gme_release.tracking import MODEL_DIGEST

    champion = find_baseline(client, config)

    def comparison() -> tuple[ModelScores, ModelScores] | None:
        if champion is None or champion.tags.get(MODEL_DIGEST) == facts.model_digest:
            return None
        return scores_of(facts), read_baseline(client, champion)

    return judge(
        facts.scores,
        policy,
        model_digest=facts.model_digest,
        scored_digest=facts.scored_digest,
        policy_digest=sha256_json(policy.model_dump(mode="json")),
        cost=cost_of(facts),
        comparison=comparison,
    )


def _verdict(client: MlflowClient, run: Run, config: ReleaseConfig, facts: RunFacts, policy: Gate) -> Verdict:
    """The verdict that the run ended with; reached anew if it can't be read, or says open and nothing is registered."""
    from gme_release.registry import find_version

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, "gate/verdict.json", folder)
            found = read_json(Path(path), Verdict)
        registered = find_version(client, config.model_name, facts.model_digest) is not None
        if found.model_digest == facts.model_digest and (registered or not found.passed):
            return found
    except (OSError, FoundryError):
        _LOGGER.warning("The verdict of run %s can't be read; the model is judged again.", run.info.run_id)
    return _judge(client, config, facts, policy)


def _note(client: MlflowClient, run: Run, facts: RunFacts, verdict: Verdict) -> None:
    """What people look for at the run: the checks as a table, the whole configuration as a file."""
    rows = redact_value([[check.name, check.passed, check.detail] for check in verdict.checks])
    # The form of MLflow's own `log_table`, which would append to what a killed process wrote.
    client.log_dict(run.info.run_id, {"columns": ["check", "passed", "detail"], "data": rows}, _CHECKS)
    client.set_tag(run.info.run_id, "mlflow.loggedArtifacts", json.dumps([{"path": _CHECKS, "type": "table"}]))
    client.log_dict(run.info.run_id, redact_value(facts.config), "config.json")
    client.set_tag(run.info.run_id, "gme.gate.reasons", redact("; ".join(verdict.reasons))[:4000] or "none")


def _move_aliases(client: MlflowClient, config: ReleaseConfig, version: str, *, fresh: bool) -> None:
    """A run that was recorded before takes no alias from a later model; it only fills a champion's empty place."""
    from gme_release.registry import crown, version_of

    champion = version_of(client, config.model_name, config.champion)
    if fresh:
        client.set_registered_model_alias(config.model_name, config.candidate, version)
    if config.promote and (fresh or champion is None):
        crown(client, version, config, None if champion is None else str(champion.version))


def _version(
    client: MlflowClient, name: str, facts: RunFacts, verdict: Verdict, model: LoggedModel, run: Run
) -> tuple[str | None, bool]:
    """``(version, whether it was created now)``."""
    from gme_release.registry import create_version, find_version
    from gme_release.tracking import BYTES, MODEL_DIGEST, RECORD

    found = find_version(client, name, facts.model_digest)
    if found is not None:
        return str(found.version), False
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


def _require_undamaged(facts: RunFacts) -> None:
    problems = damage(facts.model, facts.manifests[facts.model_step])
    if problems:
        raise FoundryError(
            f"The model in {facts.model} is not the one that was judged: {'; '.join(problems[:5])}",
            hint="Run `gme pipeline`: it makes the model again.",
        )


def _tell(name: str, verdict: Verdict, version: str | None, created: bool, champion: str | None) -> None:
    if not verdict.passed:
        _LOGGER.warning("The gate stays closed for model %s: %s", verdict.model_digest[:12], "; ".join(verdict.reasons))
    else:
        done = "registered as" if created else "was registered before as"
        _LOGGER.info(
            "Model %s %s %s version %s; champion: %s", verdict.model_digest[:12], done, name, version, champion
        )
