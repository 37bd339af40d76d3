"""From a finished run to a registered model: record it, judge it, register it at most once.

Idempotent and safe to kill at any moment. A run is identified by its record key, a model by its content digest; what
is found under them is adopted. The run is closed last, so an open one means: go through all of it again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.manifest import damage
from gme_release.config import ReleaseConfig
from gme_release.gate import Verdict, judge, load_policy
from gme_release.locks import writer_lock
from gme_release.records import RunFacts, record_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_LOGGER = logging.getLogger(__name__)


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

    Raises:
        FoundryError: The model's files differ from their manifest, scores or policy are unreadable, or another process
            keeps the registry.
    """
    _require_undamaged(facts)
    policy = load_policy(config.promotion, workspace)
    policy_json = policy.model_dump(mode="json")
    verdict = judge(
        facts.scores,
        policy,
        model_digest=facts.model_digest,
        scored_digest=facts.scored_digest,
        policy_digest=sha256_json(policy_json),
    )
    from gme_release.tracking import (
        explained,  # MLflow takes more than a second to import; only who records pays for it
    )

    with writer_lock(workspace, "registry"), explained(workspace):
        return _record_and_register(workspace, config, facts, verdict, record_key(facts, policy_json))


def _record_and_register(
    workspace: Path, config: ReleaseConfig, facts: RunFacts, verdict: Verdict, record: str
) -> Registration:
    from gme_release.registry import crown, ensure_logged_model, link_model, version_of
    from gme_release.tracking import adopt_run, experiment_of, fill_run, open_client

    client = open_client(workspace)
    run = adopt_run(client, experiment_of(client, workspace, config.experiment), facts, record)
    recorded_before = run.info.status == "FINISHED"
    model = ensure_logged_model(client, run, facts.model, facts.model_digest, config.model_name)
    if not recorded_before:
        link_model(client, run, model)
        fill_run(client, run, facts, verdict, model.model_id)
    version, created = _version(client, config.model_name, facts, verdict, model, run)
    champion = version_of(client, config.model_name, config.champion)
    if verdict.passed and version is not None and (champion is None or not recorded_before):
        crown(client, version, config)
        champion = version_of(client, config.model_name, config.champion)
    if not recorded_before:
        client.set_terminated(run.info.run_id, "FINISHED")
    crowned = None if champion is None else str(champion.version)
    _tell(config.model_name, verdict, version, created, crowned)
    return Registration(run.info.run_id, verdict, version, created, crowned)


def _version(
    client: MlflowClient, name: str, facts: RunFacts, verdict: Verdict, model: LoggedModel, run: Run
) -> tuple[str | None, bool]:
    """``(version, whether it was created now)``."""
    from gme_release.registry import create_version, find_version
    from gme_release.tracking import MODEL_DIGEST, RECORD

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
        **{f"gme.dvc.{folder.path}": folder.md5 for folder in facts.versions.folders},
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
