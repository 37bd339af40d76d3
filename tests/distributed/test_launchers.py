"""The ranks of a stage, started by the launchers of torch and DeepSpeed instead of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.ranks import free_port
from support.shapes import make_examples
from support.zero_steps import STEPS, config_of

from gme_data.examples import write_examples
from gme_data.images import write_images
from gme_training.curves import read_curve
from gme_training.job import Job

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc-per-node", "2", "--master-port", "{port}", "-m", "gme_training.worker", "{job}"],
    "deepspeed": [
        *["deepspeed", "--num_accelerators", "2", "--master_port", "{port}", "--no_local_rank"],
        *["--module", "gme_training.worker", "{job}"],
    ],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    examples, pictures = make_examples()
    write_images(folder / "images", pictures)
    write_examples(folder / "train", examples)
    return folder


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_trains_a_job(name: str, world: Path, tmp_path: Path):
    job = Job(config_of("lora", 1), world / "train", (world / "images",), None, tmp_path, tmp_path)
    job.write(tmp_path / "job.json")
    command = [part.format(port=free_port(), job=tmp_path / "job.json") for part in LAUNCHERS[name]]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [BIN / command[0], *command[1:]], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_curve(job.history)) == STEPS
    start = json.loads(job.events.read_text().splitlines()[0])
    assert start["ranks"] == 2
    assert load_file(next(tmp_path.glob("model*.safetensors")))
