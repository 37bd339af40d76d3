"""Records say what was: the configuration and the data that made the model, not those at hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from release_miniature import RULES, good_scores, write_model

from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_release.config import ReleaseConfig
from gme_release.registry.provenance import with_used_config
from gme_release.registry.registration import register
from gme_release.run_facts import RunFacts
from gme_release.settings import local_database
from gme_release.tracking.client import open_client


def made_with(facts: RunFacts, **config: object) -> RunFacts:
    manifest = replace(facts.manifests["train-2"], config=config)
    return replace(facts, manifests={**facts.manifests, "train-2": manifest}, sections={"train-2": "stage_2"})


def test_parameters_are_those_that_the_model_was_made_with(
    facts: RunFacts, config: ReleaseConfig, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"corpus": {"seed": 1}, "stage_2": {"lora": {"rank": 8}, "seed": 99}}
    told = replace(made_with(facts, lora={"rank": 8}, seed=17), config=asked)
    found = register(facts.workspace, config, told)
    client: MlflowClient = open_client(facts.workspace)
    params = client.get_run(found.run_id).data.params
    assert (params["stage_2.seed"], params["stage_2.lora.rank"], params["corpus.seed"]) == ("17", "8", "1")
    assert "stage_2.seed was 17, the config says 99" in caplog.text
    kept = client.download_artifacts(found.run_id, "config.json", str(facts.workspace))
    assert '"seed": 17' in Path(kept).read_text()
    # What was asked for is no part of the identity either: the same model, the same record.
    again = register(facts.workspace, config, made_with(replace(facts, config=asked), lora={"rank": 8}, seed=17))
    assert (again.run_id, again.created) == (found.run_id, False)


def test_the_configuration_that_was_used_needs_no_word(facts: RunFacts) -> None:
    same = made_with(facts, lora={"rank": 8}, sources=["flag"])
    assert with_used_config(same) == (same, [])


def test_a_model_of_other_data_is_refused(facts: RunFacts, config: ReleaseConfig) -> None:
    data = facts.manifests["synthesize"]
    model = replace(facts.manifests["train-2"], inputs={"synthetic": data.content})
    sources = {"train-2": {"synthetic": "synthesize"}, "synthesize": {"corpus": "corpus"}}
    told = replace(facts, manifests={**facts.manifests, "train-2": model}, sources=sources)
    with pytest.raises(FoundryError, match=r"data/synthetic was made from another .*data/atlas"):
        register(facts.workspace, config, told)
    of_corpus = replace(data, inputs={"corpus": facts.manifests["corpus"].content})
    told = replace(told, manifests={**told.manifests, "synthesize": of_corpus})
    assert register(facts.workspace, config, told).version == "1"
    other = replace(of_corpus, content="0" * 64)
    with pytest.raises(FoundryError, match=r"checkpoints/stage2 was made from another .*data/synthetic"):
        register(facts.workspace, config, replace(told, manifests={**told.manifests, "synthesize": other}))


@pytest.mark.slow
def test_gme_register_with_another_seed(
    tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command as it is typed, over a chain of outputs that were made with seed 17."""
    from flows.chains import pipeline_chain
    from flows.config import load_pipeline
    from gme_cli.main import run

    tiny = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"
    config = load_pipeline(tiny, ["stage_1.seed=17"])
    made: dict[str, Manifest] = {}
    chain = pipeline_chain(config)
    for step in chain:
        name, folder = step.name, tmp_path / step.output
        if name.startswith("train"):
            write_model(folder, seed=len(made))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "made.txt").write_text(name)
        if name == "report":
            (folder / "scores.json").write_text(json.dumps(good_scores()))
            (folder / "report.html").write_text("<h1>Report</h1>")
        files = list_files(folder)
        inputs = {key: made[source].content for key, source in step.inputs.items()}
        values = chain.section(step).model_dump(mode="json")
        content = content_digest(files)
        made[name] = Manifest(name, name, values, "0" * 64, inputs, files, content, {"queries": 20.0}, 1.0)
        write_manifest(folder, made[name])
    local_database(tmp_path).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(tmp_path))
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "promotion.yaml").write_text(yaml.safe_dump(RULES))
    asked = ["--config", str(tiny), "--workspace", str(tmp_path), "--set", "stage_1.seed=99"]
    assert run(["register", *asked]) in (0, 3), capsys.readouterr().err
    client = open_client(tmp_path)
    [experiment] = client.search_experiments(filter_string="name = 'gme-tiny'")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.data.params["stage_1.seed"] == "17"
