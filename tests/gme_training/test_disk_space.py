"""Full disks and folders that can't be written, for real: a small tmpfs in a name space of its own, limits on files."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.events import read_events
from gme_data.steps import StepContext
from gme_embedder.embedder import Embedder
from gme_training.checkpoint_files import ResumePoint
from gme_training.checkpoints import POINTER, Checkpoints
from gme_training.config import TrainingConfig
from gme_training.disk_space import checkpoint_bytes, require_disk_space, stage_bytes
from gme_training.step import train

TRAIN = """
import sys
from pathlib import Path
from gme_data.errors import FoundryError
from gme_data.steps import StepContext
from gme_training.config import TrainingConfig
from gme_training.step import train
config, corpus, synthetic, staging, log = sys.argv[1:]
try:
    train(TrainingConfig.model_validate_json(config), {"corpus": Path(corpus), "synthetic": Path(synthetic)},
          StepContext(Path(staging), "key", Path(log)))
except FoundryError as error:
    print(f"{error}\\n{error.hint}")
    sys.exit(error.exit_code)
"""
ASK = """
import sys
from pathlib import Path
from gme_data.errors import FoundryError
from gme_training.disk_space import require_disk_space
try:
    require_disk_space(Path(sys.argv[1]), int(sys.argv[2]))
except FoundryError as error:
    print(f"{error}\\n{error.hint}")
    sys.exit(error.exit_code)
"""
MIB = 2**20
SMALL_FILES = 24 * MIB
"""A checkpoint of the tower alone is below it, one of the language part too is above it."""


def name_space(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount what nobody else sees; it is gone when the script ends."""
    probe = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*probe, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let a process make its own mount namespace")
    return subprocess.run([*probe, "sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def config(small_config: Callable[..., TrainingConfig]) -> TrainingConfig:
    tower, mix = small_config().phases
    phases = (tower.model_copy(update={"steps": 5}), mix.model_copy(update={"steps": 4}))
    return small_config(phases=phases, checkpoint_every=2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    (tmp_path / "log").mkdir()
    return tmp_path


def arguments_of(config: TrainingConfig, world: dict[str, Path], home: Path) -> list[str]:
    folders = (world["corpus"], world["synthetic"], home / "staging", home / "log")
    return [sys.executable, TRAIN, config.model_dump_json(), *map(str, folders)]


def starts(home: Path) -> list[int]:
    return [event["step"] for event in read_events(home / "log" / "events.jsonl", "start")]


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    require_disk_space(tmp_path / "new" / "folder", MIB)
    assert not list((tmp_path / "new" / "folder").iterdir())
    with pytest.raises(FoundryError, match=r"Too little room.*/new/folder: .* need 1048576\.00 GiB") as caught:
        require_disk_space(tmp_path / "new" / "folder", 2**50)
    assert "lower keep_checkpoints" in str(caught.value.hint)
    assert caught.value.exit_code


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_file_in_the_way_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FoundryError, match=f"Not a folder that can be written: {tmp_path / place}$"):
        require_disk_space(tmp_path / place, 1)


@pytest.mark.hardening("faults", "F19", "full disk, read-only disk and file limit in training")
def test_a_disk_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    done = name_space('mount -t tmpfs -o ro tmpfs "$1" && exec "$2" -c "$3" "$1" 1', str(tmp_path), sys.executable, ASK)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(f"The file system is read-only: {tmp_path}\n")


def test_what_a_stopped_run_left_counts_as_room(tmp_path: Path) -> None:
    script = f'head -c 20M /dev/zero >"$1/.resume"; exec "$2" -c "$3" "$1" {30 * MIB}'
    enough, little = (
        name_space(f'mount -t tmpfs -o size={size}m tmpfs "$1"; {script}', str(tmp_path), sys.executable, ASK)
        for size in (40, 24)
    )
    assert enough.returncode == 0, enough.stdout + enough.stderr
    assert little.returncode == 1
    assert re.match(rf"Too little room on the disk of {tmp_path}: .* 0\.03 GiB, 0\.02 GiB are free", little.stdout)


@pytest.mark.hardening("faults", "F19", "full disk, read-only disk and file limit in training")
def test_a_checkpoint_that_is_too_large_for_a_file_stops_the_stage_and_the_next_run_goes_on(
    config: TrainingConfig, world: dict[str, Path], home: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", *arguments_of(config, world, home)[1:]],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    resume = home / "staging" / ".resume"
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 2
    assert re.match(rf"A file could not be written whole in {resume}/phase01-step000001; .* GiB are free", lines[0])
    assert "ulimit -f" in lines[1]
    assert sorted(path.name for path in resume.glob("phase*")) == ["phase00-step000002", "phase00-step000004"]
    assert Checkpoints(resume, keep=2, ranks=2).newest() == ResumePoint(0, 4)

    (resume / "phase99-step000001").mkdir()  # as a kill would leave it: it must not push out a whole one
    train(config, world, StepContext(home / "staging", "key", home / "log"))
    assert starts(home) == [0, 4]
    assert sorted(path.name for path in resume.glob("phase*")) == ["phase01-step000001", "phase01-step000003"]
    measured = [
        sum(p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()) for checkpoint in resume.glob("phase*")
    ]
    model = Embedder.load(home / "staging").model
    trained = sum(p.numel() for part in (model.text_parameters(), model.vision_parameters()) for p in part)
    assert max(measured) == pytest.approx(checkpoint_bytes(config, trained), rel=0.02)
    saved = sum(path.stat().st_size for path in (home / "staging").glob("*.safetensors"))
    every = sum(parameter.numel() for parameter in model.parameters())
    assert stage_bytes(config, trained, every) >= 3 * max(measured) * 0.98 + saved


@pytest.mark.hardening("faults", "F19", "full disk, read-only disk and file limit in training")
@pytest.mark.slow
def test_a_full_disk_stops_the_stage_before_it_trains_or_at_its_next_checkpoint_and_no_work_is_lost(
    config: TrainingConfig, world: dict[str, Path], home: Path
) -> None:
    script = """
    staging=$1; shift
    python=$1; shift
    mount -t tmpfs -o size=100m tmpfs "$staging"
    "$python" -c "$@"; echo "status $?"
    ls "$staging/.resume" 2>&1 | wc -l
    mount -o remount,size=400m "$staging"
    "$python" -c "$@" & running=$!
    until [ -f "$staging/.resume/phase00-step000004/MANIFEST.json" ] || ! kill -0 $running; do sleep 0.02; done
    free=$(df -k --output=avail "$staging" | tail -n 1)
    fallocate -l $((free - 8192))K "$staging/somebody-elses"
    wait $running; echo "status $?"
    ls "$staging/.resume"
    rm "$staging/somebody-elses"
    "$python" -c "$@"; echo "status $?"
    """
    done = name_space(script, str(home / "staging"), *arguments_of(config, world, home))
    refused, hint, *lines = done.stdout.strip().splitlines()
    assert re.match(rf"Too little room on the disk of {home}/staging: ", refused), done.stdout + done.stderr
    assert hint.startswith("Free some space")
    assert lines[:2] == ["status 1", "1"]  # `ls` says that there is no such folder
    failed = rf"(The disk is full: |A file could not be written whole in ){home}/staging/\.resume/phase01-step000001"
    assert re.match(failed, lines[2]), done.stdout + done.stderr
    assert "run the same command again" in lines[3]
    assert lines[4:] == ["status 1", POINTER, "phase00-step000002", "phase00-step000004", "status 0"]
    assert starts(home) == [0, 4]
