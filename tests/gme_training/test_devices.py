"""Where ranks run: on GPUs if there is one for each, else all of them on the CPU, and the user is told."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from support.ranks import run_ranks_of

from gme_data.steps import StepContext
from gme_training import engine, launch, step
from gme_training.devices import choose_device, explain_cpu, rank_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """A machine of so many GPUs, for those who only count them."""

    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return have


@pytest.mark.parametrize(
    ("ranks", "count", "device"),
    [(1, 0, "cpu"), (2, 0, "cpu"), (1, 1, "cuda"), (2, 1, "cpu"), (2, 2, "cuda"), (8, 4, "cpu"), (2, 8, "cuda")],
)
def test_each_rank_has_a_gpu_for_itself_or_none_has(ranks: int, count: int, device: str):
    assert choose_device(ranks, count) == device


@pytest.mark.parametrize(("ranks", "count"), [(1, 0), (2, 0), (2, 2), (1, 8)])
def test_nothing_is_told_of_a_machine_whose_gpus_are_used_or_that_has_none(ranks: int, count: int):
    assert explain_cpu(ranks, count) is None


def test_gpus_that_are_not_used_are_told_with_what_would_use_them():
    assert explain_cpu(2, 1) == "2 ranks and 1 GPU: the stage runs on the CPU; with ranks: 1 it would use it"
    assert explain_cpu(8, 4) == "8 ranks and 4 GPUs: the stage runs on the CPU; with ranks: 4 it would use them"


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, "cuda"),  # torchrun on two machines
        ({"WORLD_SIZE": "16", "LOCAL_SIZE": "8"}, "cuda"),  # deepspeed on two machines
        ({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "16"}, "cpu"),
        ({"WORLD_SIZE": "9"}, "cpu"),
        ({}, "cuda"),
    ],
    ids=["torchrun", "deepspeed", "crowded", "unknown", "alone"],
)
def test_the_ranks_of_a_machine_are_what_its_launcher_says(environment, device, gpus, monkeypatch: pytest.MonkeyPatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    gpus(8)
    assert rank_device() == device


def test_a_rank_takes_its_own_gpu_before_it_meets_the_others(gpus, monkeypatch: pytest.MonkeyPatch):
    """Object collectives use the current device: without this all ranks would use the first, which NCCL refuses."""
    order: list[object] = []
    deepspeed, ops = types.ModuleType("deepspeed"), types.ModuleType("deepspeed.ops")
    deepspeed.init_distributed = lambda **kwargs: order.append(kwargs["dist_backend"])
    ops.__compatible_ops__ = {}
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.setitem(sys.modules, "deepspeed.ops", ops)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: order.append(int(device)))
    gpus(8)
    engine.join_process_group()
    assert order == [3, "nccl"]


def test_two_ranks_meet_on_a_machine_that_shows_them_one_gpu():
    """As another launcher starts them: nothing hides the GPU."""
    run_ranks_of("support.one_gpu", 2)


def test_ranks_of_our_own_that_run_on_the_cpu_see_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert launch.rank_environment(1, 2, "cpu", "29500")["CUDA_VISIBLE_DEVICES"] == ""
    assert launch.rank_environment(1, 2, "cuda", "29500")["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(("ranks", "device"), [(2, "cpu"), (1, "cuda")])
def test_the_parent_decides_and_says_so(
    ranks, device, gpus, small_config, world, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    chosen = {}
    monkeypatch.setattr(step, "run_ranks", lambda *_, **kwargs: chosen.update(kwargs))
    monkeypatch.setattr(step, "read_curve", lambda *_, **__: [{"loss": 1.0}])
    monkeypatch.setattr(step, "write_curves", lambda *_: None)
    monkeypatch.setattr(step, "plot_curves", lambda *_: None)
    gpus(1)
    step.train(small_config(ranks=ranks), world, StepContext(tmp_path, "key", tmp_path))
    assert chosen["device"] == device
    assert ("2 ranks and 1 GPU: the stage runs on the CPU" in capsys.readouterr().err) == (device == "cpu")
