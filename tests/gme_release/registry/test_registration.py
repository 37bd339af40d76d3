from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from release_miniature import build_workspace, good_scores, load_facts, register_and_die

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.registry.champion import resolve_model
from gme_release.registry.registration import register
from gme_release.registry.versions import version_by_alias
from gme_release.run_facts import RunFacts
from gme_release.settings import local_database
from gme_release.tracking.client import open_client
from gme_release.tracking.tags import MODEL_DIGEST

NAME = "gme-tiny"


def client_of(workspace: Path) -> MlflowClient:
    return open_client(workspace)


def counts(workspace: Path) -> dict[str, int]:
    client = client_of(workspace)
    experiments = [e.experiment_id for e in client.search_experiments(filter_string=f"name = '{NAME}'")]
    runs = client.search_runs(experiments)
    models = client.search_logged_models(experiments)
    return {
        "runs": len(runs),
        "finished": sum(run.info.status == "FINISHED" for run in runs),
        "models": len(models),
        "ready": sum(str(model.status) == "READY" for model in models),
        "versions": len(client.search_model_versions(f"name = '{NAME}'")),
    }


ONE_OF_EACH = {"runs": 1, "finished": 1, "models": 1, "ready": 1, "versions": 1}


def test_registers_once_and_says_so(facts: RunFacts, config: ReleaseConfig) -> None:
    first = register(facts.workspace, config, facts)
    assert (first.version, first.created, first.champion) == ("1", True, "1")
    assert first.verdict.passed
    again = register(facts.workspace, config, facts)
    assert (again.version, again.created, again.run_id) == ("1", False, first.run_id)
    assert counts(facts.workspace) == ONE_OF_EACH


def test_the_run_says_what_was_done(facts: RunFacts, config: ReleaseConfig) -> None:
    found = register(facts.workspace, config, facts)
    client = client_of(facts.workspace)
    run = client.get_run(found.run_id)
    assert run.data.params["stage_2.lora.rank"] == "8"
    assert run.data.metrics["umrb/T_to_T/place-question-t2t/ndcg_at_10"] == pytest.approx(0.6)
    assert [m.step for m in client.get_metric_history(found.run_id, "loss")] == [1, 2, 3, 4, 5]
    assert run.data.tags["gme.step.train-2"] == facts.manifests["train-2"].key
    assert run.data.tags["gme.gate"] == "open"
    datasets = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert set(datasets) == {"data/atlas", "data/synthetic"}
    assert datasets["data/atlas"].dataset.digest == "a" * 32 + ".dir"
    assert {t.key: t.value for t in datasets["data/atlas"].tags}["sha256"] == facts.manifests["corpus"].content
    assert {item.path for item in client.list_artifacts(found.run_id)} == {
        "config.json", "evaluation", "gate", "manifests", "report",
    }  # fmt: skip
    assert "report/plots/loss.csv" in {item.path for item in client.list_artifacts(found.run_id, "report/plots")}
    assert [output.model_id for output in run.outputs.model_outputs] == [
        model.model_id for model in client.search_logged_models([run.info.experiment_id])
    ]


def test_a_closed_gate_registers_nothing(facts: RunFacts, config: ReleaseConfig) -> None:
    register(facts.workspace, config, facts)
    bad = good_scores()
    bad["tasks"].pop()
    worse = build_workspace(facts.workspace, seed=1, scores=bad)
    found = register(facts.workspace, config, worse)
    assert (found.version, found.created, found.champion) == (None, False, "1")
    assert found.verdict.reasons == ["complete/flag-i2i: the task was not scored"]
    run = client_of(facts.workspace).get_run(found.run_id)
    assert (run.info.status, run.data.tags["gme.gate"]) == ("FINISHED", "closed")
    assert counts(facts.workspace)["versions"] == 1


def test_a_better_model_takes_the_alias_and_an_old_run_does_not_take_it_back(
    facts: RunFacts, config: ReleaseConfig
) -> None:
    register(facts.workspace, config, facts)
    second = register(facts.workspace, config, build_workspace(facts.workspace, seed=1))
    assert (second.version, second.champion) == ("2", "2")
    client = client_of(facts.workspace)
    previous = version_by_alias(client, NAME, "previous")
    assert previous is not None
    assert str(previous.version) == "1"
    assert previous.tags[MODEL_DIGEST] == facts.model_digest
    back = register(facts.workspace, config, build_workspace(facts.workspace))
    assert (back.version, back.created, back.champion) == ("1", False, "2")


def test_scores_of_another_model_register_nothing(facts: RunFacts, config: ReleaseConfig) -> None:
    other = replace(facts.manifests["evaluate"], inputs={"model": "0" * 64})
    found = register(facts.workspace, config, replace(facts, manifests={**facts.manifests, "evaluate": other}))
    assert found.version is None
    assert any(reason.startswith("same model") for reason in found.verdict.reasons)


def test_a_model_that_changed_after_it_was_judged_is_refused(facts: RunFacts, config: ReleaseConfig) -> None:
    (facts.model / "config.json").write_text("{}")
    with pytest.raises(FoundryError, match=r"config\.json"):
        register(facts.workspace, config, facts)
    assert counts(facts.workspace)["runs"] == 0


def test_resolve(facts: RunFacts, config: ReleaseConfig, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(FoundryError, match="gme-tiny@champion"):
        resolve_model(facts.workspace, NAME)
    with pytest.raises(FoundryError, match="gme-tiny@champion"):
        resolve_model(tmp_path_factory.mktemp("empty"), NAME)
    register(facts.workspace, config, facts)
    model = resolve_model(facts.workspace, NAME)
    assert model.label == "gme-tiny v1 (champion)"
    assert model.digest == facts.model_digest
    weights = model.folder / "model-00001-of-00001.safetensors"
    assert weights.read_bytes() == (facts.model / weights.name).read_bytes()
    with pytest.raises(FoundryError, match="gme-tiny@previous"):
        resolve_model(facts.workspace, NAME, "previous")

    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(FoundryError, match="content changed"):
        resolve_model(facts.workspace, NAME)
    register(facts.workspace, config, facts)  # the record is written again from the model's folder
    assert resolve_model(facts.workspace, NAME).digest == facts.model_digest
    assert counts(facts.workspace) == ONE_OF_EACH


def die(workspace: Path, method: str, when: str) -> None:
    """Run a registration in a process that kills itself by SIGKILL before or after a call of `MlflowClient`."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["gme_release.registry.versions", "gme_release.registry.registration"])
    process = processes.Process(target=register_and_die, args=(workspace, method, when))
    process.start()
    process.join()
    assert process.exitcode == -9, f"{method}: the process ended with {process.exitcode}"


@pytest.mark.hardening("faults", "F26", "tracker's database damaged, of another version")
def test_a_damaged_database_is_named(facts: RunFacts, config: ReleaseConfig) -> None:
    path = local_database(facts.workspace)
    path.write_bytes(b"not a database" * 100)
    for use in (lambda: register(facts.workspace, config, facts), lambda: resolve_model(facts.workspace, NAME)):
        with pytest.raises(FoundryError, match=r"mlflow\.db"):
            use()


# In the order in which a registration meets them, so that each victim gets further than the one before.
_DEATHS = [
    ("search_experiments", "after"),
    ("create_run", "after"),
    ("log_model_artifacts", "after"),
    ("log_inputs", "after"),
    ("create_registered_model", "after"),
    ("create_model_version", "after"),
    ("set_registered_model_alias", "after"),
    ("set_terminated", "before"),
]


@pytest.mark.hardening("faults", "F10", "kill -9 in registration, at every point")
def test_killed_at_every_point_registers_once(tmp_path: Path, config: ReleaseConfig) -> None:
    build_workspace(tmp_path)
    for method, when in _DEATHS:
        die(tmp_path, method, when)
    found = register(tmp_path, config, load_facts(tmp_path))
    assert (found.version, found.created, found.champion) == ("1", False, "1")
    assert counts(tmp_path) == ONE_OF_EACH
    history = client_of(tmp_path).get_metric_history(found.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3, 4, 5]
    assert resolve_model(tmp_path, NAME).digest == found.verdict.model_digest


@pytest.mark.hardening("faults", "F10", "kill -9 in registration, at every point")
def test_a_victim_between_the_two_aliases(facts: RunFacts, config: ReleaseConfig) -> None:
    register(facts.workspace, config, facts)
    build_workspace(facts.workspace, seed=1)
    die(facts.workspace, "set_registered_model_alias", "after")
    client = client_of(facts.workspace)
    champion = version_by_alias(client, NAME, "champion")
    assert champion is not None
    assert str(champion.version) == "1"  # the old one is still whole
    found = register(facts.workspace, config, load_facts(facts.workspace))
    previous = version_by_alias(client, NAME, "previous")
    assert previous is not None
    assert (found.version, found.created, found.champion, str(previous.version)) == ("2", False, "2", "1")
