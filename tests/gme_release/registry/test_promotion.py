"""Aliases: moved by registration and by hand, whatever state they were found in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from release_miniature import build_workspace, good_scores

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.registry.champion import find_model, resolve_model
from gme_release.registry.promotion import promote, roll_back
from gme_release.registry.registration import register
from gme_release.registry.versions import version_by_alias
from gme_release.run_facts import RunFacts
from gme_release.settings import local_database
from gme_release.tracking.client import open_client

NAME = "gme-tiny"


def aliases(workspace: Path) -> dict[str, str]:
    client = open_client(workspace)
    found = {alias: version_by_alias(client, NAME, alias) for alias in ("candidate", "champion", "previous")}
    return {alias: str(version.version) for alias, version in found.items() if version is not None}


def worse() -> dict[str, object]:
    scores = good_scores()
    for task in scores["tasks"]:  # type: ignore[attr-defined]
        task["value"] -= 0.3
        task["interval"] = [task["value"] - 0.01, task["value"] + 0.01]
    return scores


def point_nowhere(workspace: Path, client: MlflowClient) -> None:
    """Delete version 2 and let the champion's alias point at it as before, as registries without a cascade leave it."""
    client.delete_model_version(NAME, "2")
    with sqlite3.connect(local_database(workspace)) as connection:
        connection.execute(
            "INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, 'champion', 2)", [NAME]
        )


def test_aliases_by_hand_and_without_a_champion(facts: RunFacts, config: ReleaseConfig) -> None:
    workspace = facts.workspace
    with pytest.raises(FoundryError, match="nothing to go back to"):
        roll_back(workspace, config)
    with pytest.raises(FoundryError, match="has no version 1"):
        promote(workspace, config, "1")

    register(workspace, config, facts)
    held = register(workspace, config.model_copy(update={"promote": False}), build_workspace(workspace, seed=1))
    assert aliases(workspace) == {"candidate": "2", "champion": "1"}
    assert (held.version, held.champion) == ("2", "1")
    assert promote(workspace, config, "2").changed
    assert not promote(workspace, config, "2").changed
    assert aliases(workspace) == {"candidate": "2", "champion": "2", "previous": "1"}
    assert roll_back(workspace, config).champion == "1"
    assert aliases(workspace)["previous"] == "2"
    roll_back(workspace, config)

    client = open_client(workspace)
    point_nowhere(workspace, client)
    assert find_model(workspace, NAME) is None
    with pytest.raises(FoundryError, match="gme-tiny@champion"):
        resolve_model(workspace, NAME)
    # The one before is what the next model is compared with, and takes the empty place if told to.
    refused = register(workspace, config, build_workspace(workspace, seed=2, scores=worse()))
    assert refused.version is None
    assert any("no regression/overall" in reason and "version 1" in reason for reason in refused.verdict.reasons)
    assert roll_back(workspace, config).champion == "1"
    assert find_model(workspace, NAME) is not None


def test_a_damaged_version_is_never_promoted(facts: RunFacts, config: ReleaseConfig) -> None:
    workspace = facts.workspace
    register(workspace, config, facts)
    register(workspace, config, build_workspace(workspace, seed=1))
    first = resolve_model(workspace, NAME, "previous")
    weights = first.folder / "model-00001-of-00001.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(FoundryError, match="content changed"):
        roll_back(workspace, config)
    assert aliases(workspace) == {"candidate": "2", "champion": "2", "previous": "1"}


def test_artifacts_elsewhere_are_fetched_by_digest(
    facts: RunFacts, config: ReleaseConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Artifacts of the experiment lie outside the workspace: nothing may assume that they are in it."""
    elsewhere = tmp_path_factory.mktemp("bucket")
    client = open_client(facts.workspace)
    client.create_experiment(config.experiment, artifact_location=elsewhere.as_uri())
    register(facts.workspace, config, facts)
    model = resolve_model(facts.workspace, NAME)
    assert model.folder.is_relative_to(facts.workspace / "runs" / "models")
    assert model.digest == facts.model_digest
    weights = next(elsewhere.rglob("*.safetensors"))
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    assert resolve_model(facts.workspace, NAME).folder == model.folder  # the cache is whole
    cached = model.folder / "config.json"
    cached.write_text("{}")
    with pytest.raises(FoundryError, match="are not those of model"):
        resolve_model(facts.workspace, NAME)
