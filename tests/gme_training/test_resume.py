"""Killed in the middle of saving, and again in the same epoch: the end is bit for bit that of a run nobody touched."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.killed_run import CONFIG, KILLED
from support.ranks import run_ranks_of

from gme_data.errors import FoundryError
from gme_data.events import read_events
from gme_data.manifest import damage, read_manifest
from gme_training.checkpoint_files import MANIFEST
from gme_training.checkpoints import Checkpoints


def run(world: Path, folder: Path, *deaths: str) -> None:
    folder.mkdir(exist_ok=True)
    run_ranks_of("support.killed_run", 1, str(world), str(folder), *deaths, code=KILLED if deaths else 0)


@pytest.fixture(scope="module")
def untouched(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing killed."""
    folder = tmp_path_factory.mktemp("untouched")
    run(world["corpus"].parent, folder)
    return folder


@pytest.mark.hardening("faults", "F4", "kill -9 of a rank three times, in the middle of a checkpoint too")
def test_a_run_that_was_killed_three_times_ends_bit_for_bit_the_same(
    world: dict[str, Path], untouched: Path, tmp_path: Path
):
    root = world["corpus"].parent
    folder = tmp_path / "killed"
    run(root, folder, "step:3")  # before there is a checkpoint
    run(root, folder, "seal:2")  # the checkpoint of step 6 has no manifest
    run(root, folder, "step:5")  # from step 3 on: before step 7, after a new checkpoint of step 6
    run(root, folder)
    starts = [event["step"] for event in read_events(folder / "events.jsonl", "start")]
    assert starts == [0, 0, 3, 6]
    weights = {path.name: path.read_bytes() for path in untouched.glob("*.safetensors")}
    assert weights
    assert weights == {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.hardening("faults", "F5", "kill -9 between the end of training and its manifest")
def test_a_kill_between_the_end_of_training_and_its_place_loses_no_checkpoint(
    world: dict[str, Path], untouched: Path, tmp_path: Path
):
    def publish(*killed_at: str) -> None:
        code = -signal.SIGKILL if killed_at else 0
        run_ranks_of("support.killed_publish", 1, str(world["corpus"].parent), str(tmp_path), *killed_at, code=code)

    def resumable() -> list[str]:
        return [path.parent.name for path in tmp_path.glob(f"checkpoints/.staging/*/.resume/*/{MANIFEST}")]

    publish("write_manifest")  # all is trained, and nothing says so
    assert resumable()
    publish("_drop_scratch")  # its manifest is there, and so are the checkpoints
    assert resumable()
    publish()  # nothing is left to do but the rename
    log = tmp_path / "runs" / "steps" / "train-1" / "events.jsonl"
    assert [event["step"] for event in read_events(log, "start")] == [0, 12]
    published = tmp_path / "checkpoints" / "stage1"
    manifest = read_manifest(published)
    assert manifest is not None
    assert not damage(published, manifest)
    assert not resumable()
    for path in untouched.glob("*.safetensors"):
        assert (published / path.name).read_bytes() == path.read_bytes()


def test_another_number_of_ranks_is_refused_with_what_to_do(untouched: Path):
    assert Checkpoints(untouched / ".resume", keep=2, ranks=1).newest() is not None
    with pytest.raises(FoundryError, match=r"made by 1 rank.*has 2") as caught:
        Checkpoints(untouched / ".resume", keep=2, ranks=2).newest()
    assert f"ranks: {CONFIG.ranks}" in str(caught.value.hint)
