"""The champion that scores the pictures of a run: none, then the present one, and in a rerun the one of before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows import picture_scorer
from flows.chain import Chain, plan, plan_step
from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_data.steps import HISTORY, Counts, Outcome, PlannedStep, StepContext, execute, find_done
from gme_release.registry.champion import RegisteredModel
from gme_synthesis.corpus.config import SynthesisConfig

Champions = dict[str, Path]


def write_inputs(_: object, inputs: dict[str, Path], context: StepContext) -> Counts:
    (context.staging / "out").write_text(" ".join(sorted(inputs)))
    return {}


@pytest.fixture
def chain() -> Chain:
    """The small pipeline, whose synthesis writes down what it is given."""
    small = pipeline_chain(load_pipeline(Path(__file__).with_name("small.yaml")))
    write_inputs.__module__ = "flows.picture_scorer"  # a small body of code for the key
    steps = [replace(step, run=write_inputs) if step.uses_champion else step for step in small]
    return Chain(small.config, tuple(steps))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Champions:
    """Model folder by alias, as the registry has it; empty without a champion."""
    folders: Champions = {}

    def find_model(_: Path, name: str, alias: str) -> RegisteredModel | None:
        folder = folders.get(alias)
        return folder and RegisteredModel(name, "1", alias, folder, "", "run")

    monkeypatch.setattr(picture_scorer, "find_model", find_model)
    return folders


def output(folder: Path, step: str, content: str) -> Outcome:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(content)
    files = list_files(folder)
    manifest = Manifest(step, content, {}, "", {}, files, content_digest(files), {}, 0)
    write_manifest(folder, manifest)
    return Outcome(step, folder, manifest, reused=False)


def planned(chain: Chain, workspace: Path, *, new_run: bool = False) -> PlannedStep:
    folder = workspace / "data" / "atlas"
    if not folder.exists():
        output(folder, "corpus", "atlas")
    corpus = Outcome("corpus", folder, Manifest("corpus", "atlas", {}, "", {}, (), "atlas", {}, 0), reused=True)
    return plan_step(chain, chain["synthesize"], {"corpus": corpus}, workspace, new_run=new_run)


def test_a_rerun_keeps_the_scorer_that_its_run_began_with(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    first = execute(planned(chain, tmp_path), tmp_path)
    champion = output(tmp_path / "m" / "1", "train-2", "one")
    registry["champion"] = champion.folder
    assert find_done(planned(chain, tmp_path), tmp_path), "a champion alone is no reason to make data anew"
    renewed = planned(chain, tmp_path, new_run=True)
    assert find_done(renewed, tmp_path) is None, "a new run asks the champion"
    assert find_done(planned(chain, tmp_path), tmp_path), "and planning it changed nothing"

    second = execute(renewed, tmp_path)
    assert (first.folder / "out").read_text() == "corpus judge"
    assert second.manifest.inputs["judge"] == champion.manifest.content
    registry["champion"] = output(tmp_path / "m" / "2", "train-2", "two").folder
    assert execute(planned(chain, tmp_path), tmp_path).reused
    assert planned(chain, tmp_path, new_run=True).inputs["judge"].manifest.key == "two"


def test_a_killed_run_resumes_with_its_scorer(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    def die(*_: object) -> Counts:
        raise KeyboardInterrupt

    die.__module__ = "flows.picture_scorer"
    dying = Chain(chain.config, tuple(replace(step, run=die) if step.uses_champion else step for step in chain))
    registry["champion"] = output(tmp_path / "m" / "1", "train-2", "one").folder
    with pytest.raises(KeyboardInterrupt):
        execute(planned(dying, tmp_path), tmp_path)
    registry["champion"] = output(tmp_path / "m" / "2", "train-2", "two").folder
    assert planned(chain, tmp_path).inputs["judge"].manifest.key == "one"


def test_no_champion_is_used_where_the_filter_has_no_model(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    registry["champion"] = output(tmp_path / "m", "train-2", "one").folder
    synthesis = chain.section(chain["synthesize"])
    assert isinstance(synthesis, SynthesisConfig)
    without_model = synthesis.picture_filter.model_copy(update={"model": ""})
    config = chain.config.model_copy(
        update={"synthesis": synthesis.model_copy(update={"picture_filter": without_model})}
    )
    assert set(planned(Chain(config, chain.steps), tmp_path).inputs) == {"corpus"}


def test_a_damaged_scorer_is_explained(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    model = output(tmp_path / "m", "train-2", "one")
    registry["champion"] = model.folder
    execute(planned(chain, tmp_path), tmp_path)
    (model.folder / "weights").write_text("else")
    with pytest.raises(FoundryError, match="judged the pictures") as caught:
        planned(chain, tmp_path)
    assert "--new-run" in str(caught.value.hint)


def test_a_torn_history_is_skipped(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    execute(planned(chain, tmp_path), tmp_path)
    registry["champion"] = output(tmp_path / "m", "train-2", "one").folder
    history = chain["synthesize"].log_dir(tmp_path) / HISTORY
    history.write_text('{"kind": "begun", "run": 7, "judge": []}\n{"kind": "beg\n' + history.read_text())
    assert find_done(planned(chain, tmp_path), tmp_path)


def test_a_scorer_outside_of_the_workspace_is_pinned(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    workspace = tmp_path / "workspace"
    registry["champion"] = output(tmp_path / "elsewhere", "train-2", "one").folder
    execute(planned(chain, workspace), workspace)
    registry.clear()
    assert planned(chain, workspace).inputs["judge"].manifest.key == "one"


def test_a_plan_asks_the_champion_only_for_a_new_run(tmp_path: Path, chain: Chain, registry: Champions) -> None:
    states = {state.name: state for state in plan(chain, tmp_path)}
    assert states["synthesize"].reason == "after corpus"
    assert states["train-1"].inputs == ("corpus", "synthesize")
