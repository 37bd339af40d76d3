"""Who judges a run: nobody, then the champion of the day, and in a rerun whoever it was before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows import judge
from flows.chain import Chain, plan, plan_step
from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_data.steps import HISTORY, Counts, Outcome, PlannedStep, StepContext, execute, find_done
from gme_release.champion import RegisteredModel
from gme_synthesis.corpus.config import SynthesisConfig

Champions = dict[str, Path]


def write_inputs(_: object, inputs: dict[str, Path], context: StepContext) -> Counts:
    (context.staging / "out").write_text(" ".join(sorted(inputs)))
    return {}


@pytest.fixture
def chain() -> Chain:
    """The small pipeline, whose synthesis writes down what it is given."""
    whole = pipeline_chain(load_pipeline(Path(__file__).with_name("small.yaml")))
    write_inputs.__module__ = "flows.judge"  # a small body of code for the key
    steps = [replace(step, run=write_inputs) if step.judged else step for step in whole]
    return Chain(whole.config, tuple(steps))


@pytest.fixture
def crowned(monkeypatch: pytest.MonkeyPatch) -> Champions:
    """Whom the registry names as champion; empty is nobody."""
    now: Champions = {}

    def find(_: Path, name: str, alias: str) -> RegisteredModel | None:
        folder = now.get(alias)
        return folder and RegisteredModel(name, "1", alias, folder, "", "run")

    monkeypatch.setattr(judge, "find", find)
    return now


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


def test_a_rerun_keeps_the_judge_that_its_run_began_with(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    first = execute(planned(chain, tmp_path), tmp_path)
    champion = output(tmp_path / "m" / "1", "train-2", "one")
    crowned["champion"] = champion.folder
    assert find_done(planned(chain, tmp_path), tmp_path), "a champion alone is no reason to make data anew"
    renewed = planned(chain, tmp_path, new_run=True)
    assert find_done(renewed, tmp_path) is None, "a new run asks the champion"
    assert find_done(planned(chain, tmp_path), tmp_path), "and planning it changed nothing"

    second = execute(renewed, tmp_path)
    assert (first.folder / "out").read_text() == "corpus judge"
    assert second.manifest.inputs["judge"] == champion.manifest.content
    crowned["champion"] = output(tmp_path / "m" / "2", "train-2", "two").folder
    assert execute(planned(chain, tmp_path), tmp_path).reused
    assert planned(chain, tmp_path, new_run=True).inputs["judge"].manifest.key == "two"


def test_a_run_that_was_killed_goes_on_with_its_judge(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    def die(*_: object) -> Counts:
        raise KeyboardInterrupt

    die.__module__ = "flows.judge"
    dying = Chain(chain.config, tuple(replace(step, run=die) if step.judged else step for step in chain))
    crowned["champion"] = output(tmp_path / "m" / "1", "train-2", "one").folder
    with pytest.raises(KeyboardInterrupt):
        execute(planned(dying, tmp_path), tmp_path)
    crowned["champion"] = output(tmp_path / "m" / "2", "train-2", "two").folder
    assert planned(chain, tmp_path).inputs["judge"].manifest.key == "one"


def test_nobody_judges_where_nobody_is_wanted(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    crowned["champion"] = output(tmp_path / "m", "train-2", "one").folder
    synthesis = chain.section(chain["synthesize"])
    assert isinstance(synthesis, SynthesisConfig)
    nobody = synthesis.picture_filter.model_copy(update={"model": ""})
    config = chain.config.model_copy(update={"synthesis": synthesis.model_copy(update={"picture_filter": nobody})})
    assert set(planned(Chain(config, chain.steps), tmp_path).inputs) == {"corpus"}


def test_a_damaged_judge_is_explained(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    model = output(tmp_path / "m", "train-2", "one")
    crowned["champion"] = model.folder
    execute(planned(chain, tmp_path), tmp_path)
    (model.folder / "weights").write_text("else")
    with pytest.raises(FoundryError, match="judged the pictures") as caught:
        planned(chain, tmp_path)
    assert "--new-run" in str(caught.value.hint)


def test_a_torn_history_is_passed_over(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    execute(planned(chain, tmp_path), tmp_path)
    crowned["champion"] = output(tmp_path / "m", "train-2", "one").folder
    history = chain["synthesize"].log_dir(tmp_path) / HISTORY
    history.write_text('{"kind": "begun", "run": 7, "judge": []}\n{"kind": "beg\n' + history.read_text())
    assert find_done(planned(chain, tmp_path), tmp_path)


def test_a_judge_outside_of_the_workspace_is_kept(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    workspace = tmp_path / "workspace"
    crowned["champion"] = output(tmp_path / "elsewhere", "train-2", "one").folder
    execute(planned(chain, workspace), workspace)
    crowned.clear()
    assert planned(chain, workspace).inputs["judge"].manifest.key == "one"


def test_a_plan_asks_the_champion_only_for_a_new_run(tmp_path: Path, chain: Chain, crowned: Champions) -> None:
    states = {state.name: state for state in plan(chain, tmp_path)}
    assert states["synthesize"].reason == "after corpus"
    assert states["train-1"].inputs == ("corpus", "synthesize")
