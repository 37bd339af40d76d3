"""Killed in the middle of saving, and again in the same epoch: the end is bit for bit that of a run nobody touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.killed_run import CONFIG, KILLED
from support.ranks import run_ranks_of

from gme_data.errors import FoundryError
from gme_data.events import read_events
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
    whole = {path.name: path.read_bytes() for path in untouched.glob("*.safetensors")}
    assert whole
    assert whole == {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_another_number_of_ranks_is_refused_with_what_to_do(untouched: Path):
    assert Checkpoints(untouched / ".resume", keep=2, ranks=1).newest() is not None
    with pytest.raises(FoundryError, match=r"made by 1 rank.*has 2") as caught:
        Checkpoints(untouched / ".resume", keep=2, ranks=2).newest()
    assert f"ranks: {CONFIG.ranks}" in str(caught.value.hint)
