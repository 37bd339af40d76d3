"""Who judges a run: nobody, then the champion of the day, and in a rerun whoever it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import judge
from flows.chain import find_made, run_link
from flows.config import PipelineConfig, load_pipeline
from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_data.steps import Outcome, Step
from gme_release.champion import RegisteredModel

RUN, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def config() -> PipelineConfig:
    return load_pipeline(Path(__file__).with_name("small.yaml"))


@pytest.fixture
def crowned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Whom the registry names as champion; empty is nobody."""
    now: dict[str, Path] = {}

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


def test_a_run_keeps_the_judge_it_began_with(tmp_path: Path, config: PipelineConfig, crowned: dict[str, Path]) -> None:
    assert judge.judge_of(RUN, config, tmp_path) is None
    judge.keep(RUN, None, tmp_path)
    first = output(tmp_path / "m" / "1", "train-2", "one")
    crowned["champion"] = first.folder
    assert judge.judge_of(RUN, config, tmp_path) is None
    chosen = judge.judge_of(OTHER, config, tmp_path)
    assert chosen
    assert chosen.manifest == first.manifest
    judge.keep(OTHER, chosen, tmp_path)
    crowned["champion"] = output(tmp_path / "m" / "2", "train-2", "two").folder
    assert judge.judge_of(OTHER, config, tmp_path) == chosen
    judge.forget(tmp_path)
    assert judge.judge_of(OTHER, config, tmp_path).manifest.key == "two"  # type: ignore[union-attr]
    assert judge.judge_of(OTHER, config, tmp_path, anew=True).manifest.key == "two"  # type: ignore[union-attr]
    nobody = config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"picture_filter": "none"})})
    assert judge.judge_of(OTHER, nobody, tmp_path) is None


def test_a_damaged_judge_or_memory_is_explained(
    tmp_path: Path, config: PipelineConfig, crowned: dict[str, Path]
) -> None:
    model = output(tmp_path / "m", "train-2", "one")
    judge.keep(RUN, model, tmp_path)
    (model.folder / "weights").write_text("else")
    with pytest.raises(FoundryError, match="judged the pictures") as caught:
        judge.judge_of(RUN, config, tmp_path)
    assert "--new-run" in str(caught.value.hint)
    (tmp_path / "runs/steps/synthesize/judges.json").write_text("[")
    with pytest.raises(FoundryError, match=r"judges\.json: not valid JSON"):
        judge.judge_of(RUN, config, tmp_path)


def test_the_chain_gives_the_champion_to_the_synthesis_and_reuses_what_it_judged(
    tmp_path: Path, config: PipelineConfig, crowned: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gme_synthesis.step as module

    seen: list[list[str]] = []

    def synthesize(_: object, inputs: dict[str, Path], context: module.StepContext) -> dict[str, int]:
        seen.append(sorted(inputs))
        (context.staging / "out").write_text(" ".join(sorted(inputs)))
        return {}

    synthesize.__module__ = "flows.judge"  # a small body of code for the key
    monkeypatch.setattr(module, "SYNTHESIZE", Step("synthesize", "data/synthetic", synthesize))
    made = {"corpus": output(tmp_path / "data" / "atlas", "corpus", "atlas")}
    champion = output(tmp_path / "m", "train-2", "one")

    first = run_link("synthesize", config, made, tmp_path)
    crowned["champion"] = champion.folder
    assert find_made("synthesize", config, made, tmp_path), "a champion alone is no reason to make data anew"
    assert find_made("synthesize", config, made, tmp_path, new_run=True) is None, "a new run would ask the champion"
    assert judge.judge_of(first.manifest.key, config, tmp_path) is None, "and saying so changed nothing"
    judge.forget(tmp_path)
    assert find_made("synthesize", config, made, tmp_path) is None
    second = run_link("synthesize", config, made, tmp_path)
    assert seen == [["corpus"], ["corpus", "judge"]]
    assert second.manifest.inputs["judge"] == champion.manifest.content
    assert first.manifest.key != second.manifest.key
    crowned["champion"] = output(tmp_path / "m2", "train-2", "two").folder
    assert run_link("synthesize", config, made, tmp_path).reused


def test_a_judge_outside_of_the_workspace_is_kept(
    tmp_path: Path, config: PipelineConfig, crowned: dict[str, Path]
) -> None:
    workspace = tmp_path / "workspace"
    model = output(tmp_path / "elsewhere", "train-2", "one")
    crowned["champion"] = model.folder
    judge.keep(RUN, judge.judge_of(RUN, config, workspace), workspace)
    crowned.clear()
    kept = judge.judge_of(RUN, config, workspace)
    assert kept
    assert kept.manifest == model.manifest
