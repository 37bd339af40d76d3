"""Whole stages on two gloo ranks: learning, adapters, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file
from support.ranks import run_ranks_of

from gme_data.errors import FoundryError
from gme_data.events import read_events
from gme_data.images import ImageStore
from gme_data.steps import StepContext
from gme_embedder.config import RELEASED
from gme_embedder.embedder import Embedder
from gme_training import step
from gme_training.checkpoint_files import MANIFEST
from gme_training.checkpoints import Checkpoints
from gme_training.config import LoraConfig, PhaseConfig, SourceShare, TrainingConfig
from gme_training.job import TrainingJob
from gme_training.step import train
from gme_training.trainer import initial_model

CHILD = """
import sys
from pathlib import Path
from gme_data.steps import StepContext
from gme_training.config import TrainingConfig
from gme_training.step import train
config, corpus, synthetic, folder = sys.argv[1:]
folder = Path(folder)
train(TrainingConfig.model_validate_json(config), {"corpus": Path(corpus), "synthetic": Path(synthetic)},
      StepContext(folder / "staging", "key", folder / "log"))
"""


def context(folder: Path) -> StepContext:
    (folder / "staging").mkdir(parents=True, exist_ok=True)
    (folder / "log").mkdir(exist_ok=True)
    return StepContext(folder / "staging", "key", folder / "log")


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: array
        for path in sorted((folder / "staging").glob("*.safetensors"))
        if "00001-of" not in path.name  # the frozen token table is bfloat16, which numpy has no name for
        for name, array in load_file(path).items()
    }


def train_forked(config: TrainingConfig, inputs: dict[str, Path], context: StepContext) -> dict[str, float]:
    """`train`, whose ranks are forked from a process that has imported everything: it takes seconds to do that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "run_ranks", lambda module, ranks, **_: run_ranks_of(module[0], ranks, *module[1:]))
        return dict(train(config, inputs, context))


@pytest.fixture(scope="module")
def trained_stage(small_config, world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    counts = train_forked(small_config(), world, context(folder))
    assert counts["steps"] == small_config().steps
    return folder


def test_a_stage_leaves_a_model_curves_and_events(small_config, trained_stage: Path, world: dict[str, Path], examples):
    staging = trained_stage / "staging"
    curve = json.loads((staging / "curves.json").read_text())["series"]
    assert [entry["step"] for entry in curve] == list(range(small_config().steps))
    assert {entry["phase"] for entry in curve} == {"tower", "mix"}
    assert (staging / "loss.svg").read_text().startswith("<?xml")
    events = list(read_events(trained_stage / "log" / "events.jsonl", "step"))
    assert all(event["gradient_norm"] > 0 and event["tokens_per_second"] > 0 for event in events)
    assert all(0 < event["computed_to_real"] <= 1.02 for event in events)
    assert all(-1 <= event["negative_similarity"] <= 1 and event["temperature"] == 0.03 for event in events)
    tower = [entry["loss"] for entry in curve if entry["phase"] == "tower" and entry["source"] == "shape"]
    assert np.mean(tower[-4:]) < np.mean(tower[:4])
    embedder = Embedder.load(staging)
    vectors = embedder.encode(
        [example.query for example in examples[:4]], None, ImageStore([world["corpus"] / "images"])
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("only_rank")
def test_only_the_tower_moves_in_a_tower_phase(small_config, world: dict[str, Path], tmp_path: Path):
    config = small_config(phases=small_config().phases[:1], ranks=1)
    train(config, world, context(tmp_path))
    trained, fresh = Embedder.load(tmp_path / "staging").model, Embedder.fresh(config.model, config.seed).model
    moved = {
        name
        for (name, after), before in zip(trained.named_parameters(), fresh.parameters(), strict=True)
        if not np.array_equal(after.detach().numpy(), before.detach().numpy())
    }
    assert moved
    assert all(".visual." in name for name in moved)


@pytest.mark.hardening("faults", "F3", "kill -9 in training, of the tree")
@pytest.mark.slow
def test_a_killed_stage_goes_on_and_ends_the_same(
    small_config, trained_stage: Path, world: dict[str, Path], tmp_path: Path
):
    config = small_config()
    history = tmp_path / "staging" / ".history.jsonl"
    arguments = [config.model_dump_json(), str(world["corpus"]), str(world["synthetic"]), str(tmp_path)]
    context(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], start_new_session=True)
    deadline = time.monotonic() + 240
    while sum(1 for _ in read_events(history, "step")) < 28 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.poll() is None, "it ended before it could be killed"
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    done = sum(1 for _ in read_events(history, "step"))
    assert done < config.steps

    train(config, world, context(tmp_path))
    starts = [event["step"] for event in read_events(tmp_path / "log" / "events.jsonl", "start")]
    assert starts[0] == 0
    assert 0 < starts[1] <= done
    before, after = (
        json.loads((folder / "staging" / "curves.json").read_text())["series"] for folder in (trained_stage, tmp_path)
    )
    assert [entry["batch"] for entry in before] == [entry["batch"] for entry in after]
    want, got = weights(trained_stage), weights(tmp_path)
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-5, err_msg=name)


def test_a_rank_that_is_told_to_stop_saves_with_the_others_and_the_next_run_goes_on(
    small_config, trained_stage: Path, world: dict[str, Path], tmp_path: Path
):
    config, history = small_config(), tmp_path / "staging" / ".history.jsonl"
    arguments = [config.model_dump_json(), str(world["corpus"]), str(world["synthetic"]), str(tmp_path)]
    context(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while sum(1 for _ in read_events(history, "step")) < 20 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    ranks = [record for record in psutil.Process(child.pid).children() if "gme_training.launch" in record.cmdline()]
    ranks[1].terminate()
    assert "Stopped as asked after step" in child.communicate(timeout=60)[1]
    done = sum(1 for _ in read_events(history, "step"))
    point = Checkpoints(tmp_path / "staging" / ".resume", keep=2, ranks=2).newest()
    assert small_config().phases[0].steps * point.phase + point.step == done
    train_forked(config, world, context(tmp_path))
    assert [event["step"] for event in read_events(tmp_path / "log" / "events.jsonl", "start")] == [0, done]
    want, got = weights(trained_stage), weights(tmp_path)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=2e-5, err_msg=name)


def test_checkpoints_fall_back_and_never_start_over_in_silence(trained_stage: Path, tmp_path: Path):
    folder = tmp_path / "resume"
    folder.mkdir()
    for path in (trained_stage / "staging" / ".resume").rglob("*"):
        target = folder / path.relative_to(trained_stage / "staging" / ".resume")
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    checkpoints = Checkpoints(folder, keep=2, ranks=2)
    older, newer = sorted(folder.glob("phase*"))
    assert checkpoints.newest().tag == newer.name
    (folder / "phase99-step000001").mkdir()  # killed while it was written
    assert checkpoints.newest().tag == newer.name
    model = next(newer.glob("*model_states.pt"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert checkpoints.newest().tag == older.name
    assert Checkpoints(tmp_path / "nothing", keep=2, ranks=2).newest() is None
    (older / MANIFEST).write_text("{")
    with pytest.raises(FoundryError, match="None of the checkpoints"):
        checkpoints.newest()


@pytest.mark.parametrize(("zero_stage", "ranks"), [(0, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_adapters_learn_and_leave_a_plain_model(
    small_config, world: dict[str, Path], tmp_path: Path, zero_stage: int, ranks: int, request: pytest.FixtureRequest
):
    if ranks == 1:
        request.getfixturevalue("only_rank")
    share = SourceShare(source="question", batch_size=24, group_size=4)
    phase = PhaseConfig(name="text", steps=6, mixture=(share,), text_learning_rate=5e-3, vision_learning_rate=0)
    config = small_config(phases=(phase,), lora=LoraConfig(rank=4), zero_stage=zero_stage, ranks=ranks)
    train(config, world, context(tmp_path))
    trained, fresh = weights(tmp_path), Embedder.fresh(config.model, config.seed).model.qwen.state_dict()
    assert not any("lora" in name for name in trained)
    moved = {n for n, array in trained.items() if not np.allclose(array, fresh[n].numpy(), atol=1e-7)}
    assert moved
    assert all(name.endswith(("_proj.weight", "language_model.norm.weight")) for name in moved)
    assert any(name.endswith("_proj.weight") for name in moved)
    curve = json.loads((tmp_path / "staging" / "curves.json").read_text())["series"]
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_frozen_weights_in_half_precision_and_layers_computed_again(
    small_config, world: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
):
    share = SourceShare(source="question", batch_size=24, group_size=4)
    phase = PhaseConfig(name="text", steps=6, mixture=(share,), text_learning_rate=5e-3, vision_learning_rate=0)
    config = small_config(
        phases=(phase,), lora=LoraConfig(rank=4), zero_stage=2, frozen_weights="bfloat16", activation_checkpointing=True
    )
    train_forked(config, world, context(tmp_path))
    plain = small_config(phases=(phase,), lora=LoraConfig(rank=4), ranks=1)
    (tmp_path / "plain").mkdir()
    request.getfixturevalue("only_rank")
    train(plain, world, context(tmp_path / "plain"))
    halved, full = (
        json.loads((folder / "staging" / "curves.json").read_text())["series"]
        for folder in (tmp_path, tmp_path / "plain")
    )
    assert [record["loss"] for record in halved[:2]] == pytest.approx([record["loss"] for record in full[:2]], rel=0.05)
    assert halved[-1]["loss"] < halved[0]["loss"]
    trained, fresh = weights(tmp_path), Embedder.fresh(config.model, config.seed).model.qwen.state_dict()
    for name, array in trained.items():  # matrices lost bits, and adapters were folded into the whole of the rest
        frozen = fresh[name].bfloat16().float().numpy() if array.ndim > 1 else fresh[name].numpy()
        if "_proj" not in name and "language_model.norm" not in name:
            np.testing.assert_array_equal(array, frozen, err_msg=name)


def test_a_base_to_train_from_need_not_say_what_its_inputs_are(small_config, tmp_path: Path):
    Embedder.fresh(small_config().model, 9).save(tmp_path / "base")
    (tmp_path / "base" / "gme.json").unlink()
    config = small_config(base={"model": str(tmp_path / "base"), "max_tokens": 64}, lora=LoraConfig(), ranks=1)
    job = TrainingJob(config, (), (), None, tmp_path, tmp_path)
    assert initial_model(job).settings.inputs == RELEASED.model_copy(update={"max_tokens": 64})
    (tmp_path / "base" / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Represent it: "}}')
    with pytest.raises(FoundryError, match="Represent it"):
        initial_model(job)


@pytest.mark.usefixtures("only_rank")
def test_a_stage_starts_from_a_pretrained_folder_within_its_limits(
    small_config, world: dict[str, Path], tmp_path: Path
):
    base = tmp_path / "base"
    Embedder.fresh(small_config().model, 9).save(base)
    share = SourceShare(source="question", batch_size=24)
    phase = PhaseConfig(name="text", steps=2, mixture=(share,), text_learning_rate=1e-5, vision_learning_rate=0)
    config = small_config(phases=(phase,), base={"model": str(base), "max_tokens": 64}, lora=LoraConfig(), ranks=1)
    train(config, world, context(tmp_path))
    before, after = Embedder.load(base), Embedder.load(tmp_path / "staging")
    assert after.settings.inputs.max_tokens == 64
    for (name, old), new in zip(before.model.named_parameters(), after.model.parameters(), strict=True):
        np.testing.assert_allclose(new.detach().float(), old.detach().float(), atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    "lora",
    [pytest.param(None, marks=pytest.mark.slow, id="whole"), pytest.param(LoraConfig(rank=4), id="adapters")],
)
@pytest.mark.usefixtures("only_rank")
def test_a_share_of_the_start_is_kept(small_config, trained_stage: Path, world: dict[str, Path], tmp_path: Path, lora):
    start = trained_stage / "staging"
    share = SourceShare(source="question", batch_size=24)
    phase = PhaseConfig(name="text", steps=2, mixture=(share,), text_learning_rate=1e-2, vision_learning_rate=0)
    saved = {}
    for start_share in (0.0, 0.75):
        folder = tmp_path / str(start_share)
        config = small_config(phases=(phase,), lora=lora, start_share=start_share, ranks=1)
        train(config, {**world, "model": start}, context(folder))
        saved[start_share] = Embedder.load(folder / "staging").model.state_dict()
    first = Embedder.load(start).model.state_dict()
    moved = {name for name, weight in first.items() if not weight.equal(saved[0.0][name])}
    assert moved
    assert all(name.startswith("qwen.language_model") for name in moved)
    for name, weight in first.items():
        expected = 0.25 * saved[0.0][name].double() + 0.75 * weight.double() if name in moved else weight
        np.testing.assert_allclose(saved[0.75][name].double(), expected.double(), atol=1e-6, err_msg=name)


def test_a_loss_that_is_not_finite_stops_all_ranks_with_a_reason(small_config, world: dict[str, Path], tmp_path: Path):
    share = SourceShare(source="shape", batch_size=16)
    phase = PhaseConfig(
        name="wild", objective="tower", steps=40, mixture=(share,), text_learning_rate=0, vision_learning_rate=1e38
    )
    with pytest.raises(FoundryError, match=r"The (loss|gradient) is nan at step \d+ of phase 'wild', source 'shape'"):
        train(small_config(phases=(phase,)), world, context(tmp_path))


def test_a_source_without_examples_stops_before_any_rank_starts(world: dict[str, Path], tmp_path: Path):
    phase = PhaseConfig(name="mix", steps=1, mixture=(SourceShare(source="sounds"),))
    with pytest.raises(FoundryError, match="'sounds'"):
        train(TrainingConfig(phases=(phase,)), world, context(tmp_path))
    assert not list((tmp_path / "log").iterdir())
