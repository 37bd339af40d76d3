"""The whole step on a small real Atlas: nine task types, nothing held out, the same bytes after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import killable
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from atlas.instructions import INSTRUCTIONS
from gme_data.errors import FoundryError
from gme_data.events import read_events
from gme_data.examples import read_examples
from gme_data.items import TASK_TYPES
from gme_data.manifest import content_digest, list_files
from gme_data.parquet import read_rows, read_shards
from gme_data.steps import StepContext
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.corpus.atlas import RECIPES
from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig
from gme_synthesis.corpus.run import synthesize
from gme_synthesis.stages import Reject
from gme_synthesis.steps.picture_score import PictureFilter

CONFIG = AtlasSynthesisConfig(shard=8, caps={"place-question": 100})


def run(atlas: Path, home: Path) -> Path:
    for folder in ("staging", "log"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    synthesize(CONFIG, {"corpus": atlas}, StepContext(home / "staging", "key", home / "log"))
    return home / "staging"


@pytest.fixture(scope="module")
def output(small_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_atlas, tmp_path_factory.mktemp("synthetic"))


def test_all_task_types_and_a_funnel_that_adds_up(output: Path) -> None:
    examples = read_examples(output / "train")
    funnel = json.loads((output / "funnel.json").read_text())
    assert {example.task_type for example in examples} == set(TASK_TYPES)
    assert funnel["examples"] == len(examples) == funnel["steps"][-1]["kept"] == sum(funnel["sources"].values())
    assert funnel["sources"]["place-question"] == 100
    refused = sum(sum(step["rejected"].values()) for step in funnel["steps"])
    assert len(read_shards(output / "rejects", "rejects")) == refused > 0


def test_card_and_plot_show_the_run(output: Path) -> None:
    funnel = json.loads((output / "funnel.json").read_text())
    card = (output / "README.md").read_text()
    for step in funnel["steps"]:
        assert f"| {step['step']} | {step['seen']:,} | {step['kept']:,} |" in card
        assert f">{step['step']}<" in (output / "funnel.svg").read_text()
    assert f"`picture-score` was skipped: {funnel['skipped']['picture-score']}" in card
    shown = {path.stem for path in (output / "card").glob("*.png")}
    assert shown
    assert all(f"card/{name}.png" in card for name in shown)


def test_seconds_of_each_step_are_logged(output: Path) -> None:
    [event] = read_events(output.parent / "log" / "events.jsonl", "steps")
    assert list(event["seconds"])[:4] == ["clean", "draft", "question", "consistency"]
    assert event["seconds"]["consistency"] > 0


def test_only_the_train_part_is_used_and_no_fused_question_names_its_place(output: Path, small_atlas: Path) -> None:
    places = read_rows(small_atlas / "corpus" / "places.parquet")
    trained = {place["entity_group"] for place in places if place["split"] == "train"}
    names = [place["name"].casefold() for place in places]
    fused = [e for e in read_examples(output / "train") if e.source.startswith("flag-question")]
    assert fused
    for example in fused:
        assert example.entity_group in trained
        assert not any(name in str(example.query.text).casefold() for name in names)


@pytest.mark.hardening("faults", "F1", "kill -9 in synthesis")
def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(output: Path, small_atlas: Path, tmp_path: Path) -> None:
    home = tmp_path / "killed"
    for folder in ("staging", "log"):
        (home / folder).mkdir(parents=True)
    process = killable.start(killable.atlas, CONFIG.model_dump_json(), small_atlas, home)
    journal = home / "staging" / ".work" / "write"
    deadline = time.monotonic() + 900
    while not list(journal.glob("*.json")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    before = {path.name: path.stat().st_mtime_ns for path in journal.glob("*.json")}
    assert before
    staging = run(small_atlas, home)
    after = {path.name: path.stat().st_mtime_ns for path in journal.glob("*.json")}
    assert {name: after[name] for name in before} == before
    assert content_digest(list_files(staging)) == content_digest(list_files(output))


def test_instructions_are_those_of_the_benchmark() -> None:
    assert {recipe.source: recipe.instruction for recipe in RECIPES}.items() <= INSTRUCTIONS.items()


def test_a_corpus_without_train_part_is_a_clear_error(small_atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    rows = [{**row, "split": "test"} for row in read_rows(small_atlas / "corpus" / "places.parquet")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / "places.parquet")
    with pytest.raises(FoundryError, match=r"places\.parquet: no row of the train split"):
        run(tmp_path, tmp_path)


class ByName:
    """Scores the places that it knows."""

    scored = 0

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        self.scored += len(pictures)
        return np.array([0.9 if "Norway" in text else -0.1 for text in texts], np.float32)


def test_the_champion_refuses_flags_that_look_wrong_and_is_asked_once() -> None:
    scorer = ByName()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))
    picture_filter = PictureFilter(lambda _: noise, scorer, min_score=0.0)
    drafts = [
        Candidate(f"{name}-p", "", fact=f"{name}-f", entity=name, portrait_caption=f"The flag of {name}.",
                  entity_images=(EntityImage(f"{name}-t", "search"), EntityImage(f"{name}-o", "search")))
        for name in ("Norway", "The Gambia")
    ]  # fmt: skip
    for _ in range(2):
        accepted, refused = picture_filter.run(drafts)
        assert isinstance(accepted, Candidate)
        assert [image.score for image in accepted.entity_images] == [0.9, 0.9]
        assert refused == Reject("picture-filter", "low-score", "The Gambia-f/0", "The Gambia")
    assert scorer.scored == 4
