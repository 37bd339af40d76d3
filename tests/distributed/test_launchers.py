"""`gme train` as the ranks of another launcher: torchrun and deepspeed instead of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from support.ranks import free_port
from support.shapes import make_examples
from support.zero_steps import STEPS, config_of

from flows.chains import ATLAS, SYNTHESIZE
from gme_cli.main import run as run_command
from gme_data.errors import FoundryError
from gme_data.examples import write_examples
from gme_data.images import write_images
from gme_data.settings import Frozen
from gme_data.steps import PlannedStep, Step, StepContext, execute
from gme_training.external_launcher import train_as_rank_zero
from gme_training.job import TrainingJob

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc-per-node", "2", "--master-port", "{port}"],
    "deepspeed": ["deepspeed", "--num_accelerators", "2", "--master_port", "{port}", "--no_local_rank"],
}
MODULE = {"torchrun": ["-m", "gme_cli.main"], "deepspeed": ["--module", "gme_cli.main"]}


class Nothing(Frozen):
    """No settings."""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """With published pictures and examples, and a pipeline file."""
    examples, pictures = make_examples()

    def draw(_: Nothing, __: object, context: StepContext) -> dict[str, int]:
        write_images(context.staging / "images", pictures)
        return {}

    def ask(_: Nothing, __: object, context: StepContext) -> dict[str, int]:
        write_examples(context.staging / "train", examples)
        return {}

    for step, run in ((ATLAS, draw), (SYNTHESIZE, ask)):
        execute(PlannedStep(Step(step.name, run, step.output), Nothing(), {}), tmp_path)
    stage = config_of("lora", 1).model_dump(mode="json")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"name": "shapes", "stage_1": stage, "stage_2": stage}))
    return tmp_path


def launch(name: str, workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [part.format(port=free_port()) for part in (*LAUNCHERS[name], *MODULE[name])]
    process = start([*command, *verb(workspace), *arguments])
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def verb(workspace: Path) -> list[str]:
    return ["train", "--stage", "1", "--config", str(workspace / "pipeline.yaml"), "--workspace", str(workspace)]


def start(command: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [BIN / command[0], *command[1:]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("name", ["torchrun", pytest.param("deepspeed", marks=pytest.mark.slow)])
def test_a_launcher_trains_a_stage_and_without_one_it_is_found_done(
    name: str, workspace: Path, capsys: pytest.CaptureFixture[str]
):
    done = launch(name, workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made in" in done.stdout
    stage = workspace / "checkpoints" / "stage1"
    assert len(json.loads((stage / "curves.json").read_text())["series"]) == STEPS
    assert load_file(next(stage.glob("model*.safetensors")))
    events = next((workspace / "runs").rglob("events.jsonl")).read_text().splitlines()
    assert json.loads(events[0])["ranks"] == 2
    assert run_command(verb(workspace)) == 0
    assert "was there already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_hostfile_names_machines_that_each_start_their_own(workspace: Path):
    (workspace / "hostfile").write_text("localhost slots=1\n127.0.0.1 slots=1\n")  # one machine by two names, no ssh
    where = ["--hostfile", str(workspace / "hostfile"), "--no_ssh", "--master_addr", "127.0.0.1"]
    port, both = str(free_port()), ["--no_local_rank", *MODULE["deepspeed"], *verb(workspace)]
    nodes = [start(["deepspeed", *where, "--master_port", port, "--node_rank", str(node), *both]) for node in range(2)]
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert len(json.loads((workspace / "checkpoints" / "stage1" / "curves.json").read_text())["series"]) == STEPS


def test_another_number_of_ranks_than_the_recipes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    job = TrainingJob(config_of("lora", 1).model_copy(update={"ranks": 3}), (), (), None, tmp_path, tmp_path)
    with pytest.raises(FoundryError, match="The launcher started 2 ranks, but the stage has ranks: 3") as caught:
        train_as_rank_zero(job, tmp_path / "job.json")
    assert caught.value.hint == "Start 3, or set ranks to 2: it is a part of the recipe."


@pytest.mark.slow
def test_ranks_whose_number_is_refused_end_all_together(workspace: Path):
    done = launch("torchrun", workspace, "--set", "stage_1.ranks=3")
    assert done.returncode != 0
    assert "The launcher started 2 ranks, but the stage has ranks: 3." in done.stderr
    assert not (workspace / "checkpoints" / "stage1").exists()
