"""Plans against what really happens: real graphs, real steps of the engine, torch's counter, DeepSpeed's estimates.

Run as a program, this file takes training steps and prints how much memory each really took, as one JSON list.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.architectures import qwen_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLModel

from atlas.instructions import INSTRUCTIONS
from gme_cli.main import run
from gme_cli.plan import task_types
from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED
from gme_embedder.costs import Architecture, LanguageShape, TowerShape
from gme_embedder.modeling.model import EmbedderModel
from gme_embedder.modeling.precision import has_bfloat16
from gme_embedder.processing.batch import PreparedBatch, TokenisedItem, pack
from gme_training import engine as engines
from gme_training import gradient_cache, loss
from gme_training.batches import Batch
from gme_training.config import CacheConfig, LoraConfig, PhaseConfig, SourceShare, TrainingConfig
from gme_training.contrastive import ContrastiveModel, Share, Slots
from gme_training.frozen import to_half
from gme_training.lora import add_adapters
from gme_training.objective import PreparedStep, batch_gradients
from gme_training.planning import memory, states
from gme_training.planning.accelerators import ACCELERATORS, Accelerator, parse_fleet
from gme_training.planning.activations import MicroBatch, Numerics, graph_bytes
from gme_training.planning.memory import Memory, Step, estimate, kept_graphs
from gme_training.planning.plan import plan_stage
from gme_training.planning.stage import Assumptions, Site
from gme_training.planning.states import Engine
from gme_training.planning.work import step_work

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MIB = 2**20
HEAD = 17
SMALL = Architecture(LanguageShape(1000, 128, 352, 3, 4, 2, 32), TowerShape(2, 64, 256, 4, 14, 128))
LARGE = Architecture(LanguageShape(4000, 512, 1536, 5, 8, 2, 64), TowerShape(2, 64, 256, 4, 14, 512))
"""Large enough that what allocators and libraries keep for themselves is small beside it."""


# Models and batches, as the trainer makes them.


def qwen(shape: Architecture) -> Qwen2VLModel:
    torch.manual_seed(0)
    return Qwen2VLModel(qwen_config(shape))


def micro_batch(items: int, length: int, cells: int) -> PreparedBatch:
    rng = np.random.default_rng(0)
    made = []
    for number in range(items):
        pixels = rng.integers(0, 255, (cells * 28, cells * 28, 3), dtype=np.uint8) if cells else None
        own = [100 + number, *rng.integers(10, 900, length - 1 - cells**2).tolist()]
        ids = np.array([*range(10, 10 + HEAD), *[5] * cells**2, *own], dtype=np.int32)
        made.append(TokenisedItem(ids, HEAD, pixels, (cells, cells)))
    return pack(made, "sequential")


def config_of(case: dict) -> TrainingConfig:
    share = SourceShare(source="s")
    rate = 1e-4 if case.get("vision") else 0
    phase = PhaseConfig(name="p", steps=1, mixture=(share,), text_learning_rate=1e-4, vision_learning_rate=rate)
    return TrainingConfig(
        phases=(phase,),
        lora=LoraConfig(rank=case["lora"]) if case.get("lora") else None,
        autocast=bool(case.get("autocast")),
        zero_stage=case.get("zero", 0),
        cache=CacheConfig(kept_mib=case.get("kept", 0)),
        activation_checkpointing=bool(case.get("checkpointing")),
        frozen_weights="bfloat16" if case.get("half") else "float32",
    )


def model_of(shape: Architecture, config: TrainingConfig) -> tuple[ContrastiveModel, dict[str, list]]:
    embedder = EmbedderModel(qwen(shape), RELEASED.pictures)
    model = ContrastiveModel(embedder, autocast=config.autocast, temperature=0.03)
    text = list(embedder.text_parameters())
    if config.lora:
        text = [*add_adapters(embedder.language, config.lora, 1), embedder.language.norm.weight]
    model.requires_grad_(False)
    embedder.checkpointed = config.activation_checkpointing
    if config.frozen_weights == "bfloat16":
        to_half(model, [*text, embedder.language.embed_tokens.weight])
    parts = {"text": text, "vision": list(embedder.vision_parameters()), "temperature": [model.log_temperature]}
    for name, rate in engines.peak_rates(config.phases[0], config).items():
        for parameter in parts[name]:
            parameter.requires_grad_(rate > 0)
    return model.train(), parts


def step_of(case: dict) -> PreparedStep:
    items, length, cells, count = case["items"], case["length"], case.get("cells", 0), case.get("count", 2)
    total, queries = items * count, items * count // 2
    pairs = np.stack([np.arange(queries)] * 2, axis=1)
    nobody = np.zeros((0, 2), np.int64)
    share, rows = SourceShare(source="s"), np.arange(queries)
    batch = Batch(share, rows, np.arange(total - queries), rows, nobody, pairs, (1,))
    encoded = tuple(micro_batch(items, length, cells) for _ in range(count))
    return PreparedStep(batch, Slots((), (), (tuple(range(total)),)), Share(encoded, tuple(range(total))))


# The same, planned.


def numerics(case: dict) -> Numerics:
    return Numerics(
        text="adapters" if case.get("lora") else "full",
        rank=case.get("lora", 0),
        vision=bool(case.get("vision")),
        autocast=bool(case.get("autocast")),
        frozen_half=bool(case.get("half")),
        checkpointing=bool(case.get("checkpointing")),
        on_cpu=True,
    )


def planned_step(case: dict) -> Step:
    batch = MicroBatch(case["items"], case["length"], HEAD, case.get("cells", 0) ** 2)
    vectors = case["items"] * case.get("count", 2)
    return Step(((batch, case.get("count", 2)),), case.get("kept", 0) * MIB, vectors, vectors / 2)


def planned(case: dict) -> Memory:
    return estimate(LARGE, numerics(case), Engine(case.get("zero", 0), 1, overlap=False), planned_step(case))


# What autograd keeps.

GRAPHS = [
    {"items": 8, "length": 100},
    {"items": 16, "length": 30},
    {"items": 3, "length": 600},
    {"items": 6, "length": 60, "cells": 6},
    {"items": 6, "length": 60, "cells": 6, "vision": True},
    {"items": 6, "length": 40, "cells": 3, "vision": True},
]


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [0, 8], ids=["full", "lora"])
@pytest.mark.parametrize("case", GRAPHS, ids=str)
def test_a_graph_keeps_so_many_bytes(case: dict, lora: int, autocast: bool) -> None:
    case = {**case, "lora": lora, "autocast": autocast}
    model, _ = model_of(SMALL, config_of(case))
    batch = micro_batch(case["items"], case["length"], case.get("cells", 0))
    batch = batch if case.get("vision") else model.with_features(batch)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with gradient_cache._counted(weights) as size:
        model(batch, "embedding")
    (one, _), *_ = planned_step(case).micro_batches
    assert graph_bytes(SMALL, one, numerics(case)) == pytest.approx(size[0], rel=0.02)


@pytest.mark.parametrize("kept_mib", [0, 1, 3, 4, 100])
def test_as_many_graphs_are_kept_as_the_gradient_cache_keeps(kept_mib: int) -> None:
    weight = torch.ones(1, requires_grad=True)
    sizes = [MIB // 4, MIB // 4, MIB // 2, MIB // 4, MIB // 4]  # numbers; four bytes each
    calls = []

    def encode(numbers: int) -> torch.Tensor:
        calls.append(numbers)
        return (weight * torch.ones(numbers)).pow(2).sum()[None, None] * weight

    probe = [_saved(encode, numbers) for numbers in sizes]
    calls.clear()
    gradient_cache.cached_gradients(
        encode, sizes, lambda vectors: vectors.sum(), [weight], kept_bytes=kept_mib * MIB, frozen=[]
    )
    again = len(calls) - len(sizes)
    assert kept_graphs([(size, 1) for size in probe], kept_mib * MIB) == len(sizes) - again
    alike = kept_graphs([(probe[0], 5)], kept_mib * MIB)
    assert alike == kept_graphs([(probe[0], 1)] * 5, kept_mib * MIB)


def _saved(encode, numbers: int) -> int:
    with gradient_cache._counted(set()) as size:
        encode(numbers)
    return size[0]


# What a step takes.

CASES = [
    {"items": 5, "length": 100, "kept": 0},
    {"items": 3, "length": 100, "kept": 10**6},
    {"items": 12, "length": 100, "kept": 0, "lora": 8, "autocast": True},
    {"items": 6, "length": 100, "kept": 10**6, "lora": 8, "autocast": True},
    {"items": 5, "length": 60, "cells": 6, "count": 3, "kept": 100, "vision": True, "autocast": True},
    {"items": 3, "length": 100, "kept": 0, "zero": 2},
    {"items": 10, "length": 100, "kept": 0, "checkpointing": True},
    {"items": 12, "length": 100, "kept": 0, "lora": 8, "autocast": True, "half": True},
    {"items": 24, "length": 100, "kept": 0, "lora": 8, "autocast": True, "half": True, "checkpointing": True},
]


def too_slow_here(case: dict) -> bool:
    """A processor that has no bfloat16 multiplies it thirty times slower than float32: minutes a case."""
    return bool(case.get("autocast")) and not has_bfloat16("cpu")


@cache
def measured() -> dict[int, dict[str, int]]:
    numbers = [number for number, case in enumerate(CASES) if not too_slow_here(case)]
    # Large blocks are mapped on their own and given back at once, so what is resident is what is in use.
    own = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([CASES[number] for number in numbers])],
        env={**os.environ, **own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONFIGS.parent / "tests")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(numbers, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
@pytest.mark.slow
def test_a_real_step_takes_so_much_memory(number: int) -> None:
    if too_slow_here(CASES[number]):
        pytest.skip("this processor has no bfloat16, so that the step would take minutes")
    found, expected = measured()[number], planned(CASES[number])
    assert expected.peak == pytest.approx(max(found["backward"], found["descent"]), rel=0.12)
    assert expected.backward.total == pytest.approx(found["backward"], rel=0.12)
    # The lower summit of a stage with adapters is little more than the weights, so libraries show.
    assert expected.descent.total == pytest.approx(found["descent"], rel=0.12, abs=24 * MIB)


def measure(case: dict, shape: Architecture, steps: int = 2) -> dict[str, int]:
    """Resident memory beyond what there was before the model, in bytes, at the summits of the last step.

    The optimizer has its moments from the second step on.
    """
    step = step_of(case)
    gc.collect()  # engines refer to themselves; what an earlier one held must be gone before, not meanwhile
    before, found = resident("VmRSS"), {}
    config = config_of(case)
    model, parts = model_of(shape, config)
    engine = engines.start_engine(model, parts, config.phases[0], config)
    engines.set_rates(engine, dict.fromkeys(parts, 1e-4))
    for _ in range(steps):
        forget_the_peak()
        gradients, _ = batch_gradients(model, step, config.phases[0], config)
        found["backward"] = resident("VmHWM") - before
        forget_the_peak()
        engines.descend(engine, gradients)
        found["descent"] = resident("VmHWM") - before
        del gradients
    engine.destroy()
    return found


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(cases: list[dict]) -> None:
    """Each case in a process of its own, forked after the imports; a smaller model first, for the libraries' sake."""
    found = []
    for case in cases:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            logging.disable(logging.WARNING)
            free = str(20_000 + os.getpid() % 20_000)
            os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=free)
            engines.connect()
            text = LARGE.language
            few = LanguageShape(text.vocabulary, text.width, text.inner, 2, text.heads, text.kv_heads, text.head_dim)
            measure({**case, "count": 1}, Architecture(few, LARGE.tower), steps=1)
            os.write(writer, json.dumps(measure(case, LARGE)).encode())
            os._exit(0)
        os.close(writer)
        told = os.read(reader, 10_000)
        _, status = os.waitpid(child, 0)
        assert status == 0, case
        found.append(json.loads(told))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


# How much is computed.


@pytest.mark.parametrize("kept", [0, 10**6], ids=["none-kept", "all-kept"])
@pytest.mark.parametrize("lora", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize(("cells", "vision"), [(0, False), (3, False), (3, True)])
def test_a_step_has_so_many_operations(cells: int, vision: bool, lora: int, kept: int) -> None:
    # Short enough for attention by plain products, which torch's counter sees.
    case = {"items": 6, "length": 40, "cells": cells, "vision": vision, "lora": lora, "kept": kept}
    config = config_of(case)
    model, _ = model_of(SMALL, config)
    step = step_of(case)
    with FlopCounterMode(display=False) as counter:
        batch_gradients(model, step, config.phases[0], config)
    own, how = planned_step(case), numerics(case)
    graphs = [(graph_bytes(SMALL, batch, how), count) for batch, count in own.micro_batches]
    work = step_work(SMALL, how, own, graphs)
    assert (work.again > 0) == (kept == 0)
    assert work.total == pytest.approx(counter.get_total_flops(), rel=0.01)


# Against DeepSpeed, and constants that stand in two places.


@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_states_against_deepspeeds_own_estimate(ranks: int) -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    trained = 10**9
    _, theirs = estimate_zero2_model_states_mem_needs(trained, ranks, 1, cpu_offload=False)
    # 2 bytes of float16 weights; divided by the ranks: 2 of gradients, 4 + 4 of gradients and weights, 8 of moments.
    shared = theirs - 2 * trained
    assert shared == 18 * trained // ranks
    # Ours are float32 throughout: there is no half copy, so what is comparable are the 16 bytes that are divided.
    ours = states.optimizer_bytes(trained, Engine(2, ranks)) + states.FLOAT * trained / ranks
    assert ours == pytest.approx(shared - 2 * trained / ranks)


def test_constants_are_those_of_the_code_they_describe() -> None:
    assert memory.TILE == loss.TILE
    assert engines.engine_config(config_of({}))["zero_optimization"]["reduce_bucket_size"] == states.BUCKET


# The plan as a whole.


def large_stage() -> tuple[TrainingConfig, Architecture]:
    config = config_of({"lora": 8, "autocast": True})
    share = SourceShare(source="s", task_type="T->T", batch_size=2048)
    phase = config.phases[0].model_copy(update={"mixture": (share,)})
    cache = CacheConfig(tokens=16_384, kept_mib=8192)
    shape = Architecture(LanguageShape(50_000, 2048, 8192, 24, 16, 4, 128), TowerShape(8, 512, 2048, 8, 14, 2048))
    return config.model_copy(update={"phases": (phase,), "cache": cache}), shape


def test_a_change_that_makes_a_stage_fit_is_found() -> None:
    config, shape = large_stage()
    plan = plan_stage(config, Site(shape, 1, ACCELERATORS["L4-24G"], Assumptions()))
    assert not plan.fits
    assert [one.changes for one in plan.alternatives if one.fits] == [{"activation_checkpointing": True}]
    changed = config.model_copy(update={"activation_checkpointing": True})
    again = plan_stage(changed, Site(shape, 1, ACCELERATORS["L4-24G"], Assumptions()))
    assert again.fits
    assert again.work.recomputed > 0
    assert again.hours > plan.hours
    assert again.largest.micro_batch > plan.largest.micro_batch


def test_changes_are_put_together_if_none_is_enough() -> None:
    config, shape = large_stage()
    tight = Accelerator("tight", 17 * 2**30, bf16=1e14, fp32=1e13)
    *alone, together = plan_stage(config, Site(shape, 1, tight, Assumptions())).alternatives
    assert not any(one.fits for one in alone)
    assert together.fits
    assert together.changes == {"frozen_weights": "bfloat16", "activation_checkpointing": True}


def test_the_largest_sizes_are_where_memory_ends() -> None:
    config, shape = large_stage()
    device = ACCELERATORS["A100-80G"]
    plan = plan_stage(config, Site(shape, 1, device, Assumptions()))
    assert plan.largest.cached > plan.largest.plain > 0

    def fits(tokens: int) -> bool:
        cache = CacheConfig(tokens=tokens, kept_mib=0)
        return plan_stage(config.model_copy(update={"cache": cache}), Site(shape, 1, device, Assumptions())).fits

    assert fits(int(plan.largest.micro_batch * 0.9))
    assert not fits(int(plan.largest.micro_batch * 1.1))


def test_more_devices_take_less_time_and_memory() -> None:
    config = config_of({"vision": True})
    slow, fast = (plan_stage(config, Site(LARGE, count, ACCELERATORS["A100-40G"], Assumptions())) for count in (1, 8))
    assert fast.hours == pytest.approx(slow.hours / 8, rel=0.1)
    assert fast.work.total == pytest.approx(slow.work.total, rel=0.1)
    divided = config.model_copy(update={"zero_stage": 2})
    eighth = plan_stage(divided, Site(LARGE, 8, ACCELERATORS["A100-40G"], Assumptions()))
    assert eighth.memory.backward.optimizer == pytest.approx(fast.memory.backward.optimizer * 12 / 8 / 8)


def test_accelerators_are_read_or_refused_with_advice() -> None:
    assert parse_fleet("8xA100-80G") == (8, ACCELERATORS["A100-80G"])
    assert parse_fleet("2xl4-24g") == (2, ACCELERATORS["L4-24G"])
    with pytest.raises(FoundryError, match="Did you mean 'H100-80G'"):
        parse_fleet("8xH100-80")
    for text in ("A100-80G", "0xA100-80G", "x", "8 x", "-1xA100-80G"):
        with pytest.raises(FoundryError, match="expected COUNTxNAME"):
            parse_fleet(text)
    assert ACCELERATORS["V100-32G"].peak(autocast=True) == ACCELERATORS["V100-32G"].fp32


# The command.


def test_the_command_prints_a_table_that_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--config", str(CONFIGS / "gme-2b.yaml"), "--gpus", "8xA100-80G"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for word in ("stage_1", "stage_2", "FIT", "weights", "limits", "hours", "--set stage_2.", "GiB"):
        assert word in shown
    assert "dollars" not in shown


def test_the_command_gives_all_numbers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--config", str(CONFIGS / "gme-7b.yaml"), "--gpus", "8xA100-80G", "--json"]
    assert run([*command, "--dollars-per-gpu-hour", "2", "--mfu", "0.2"]) == 0
    told = json.loads(capsys.readouterr().out)
    stage = told["stages"]["stage_1"]
    assert stage["parameters"]["trained"] + stage["parameters"]["frozen"] == stage["parameters"]["total"] > 7e9
    assert stage["dollars"] == pytest.approx(stage["hours"] * 8 * 2)
    parts = stage["memory"]["backward"]
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert run([*command, "--mfu", "0.4"]) == 0
    faster = json.loads(capsys.readouterr().out)["stages"]["stage_1"]
    assert faster["dollars"] is None
    assert faster["hours"] == pytest.approx(stage["hours"] / 2)


def test_longer_texts_take_longer(capsys: pytest.CaptureFixture[str]) -> None:
    hours = []
    for tokens in ("50", "400"):
        command = ["plan", "--config", str(CONFIGS / "tiny.yaml"), "--gpus", "1xL4-24G", "--json"]
        assert run([*command, "--tokens-per-text", tokens]) == 0
        hours.append(json.loads(capsys.readouterr().out)["stages"]["stage_2"]["hours"])
    assert hours[1] > 1.5 * hours[0]


def test_the_page_shows_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    page = (CONFIGS.parent / "docs" / "planning.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```console\n\$ gme (.*?)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    for command, output in shown:
        assert run(command.split()) == 0
        assert capsys.readouterr().out == output, f"docs/planning.md is old: paste what gme {command} prints"


@pytest.mark.parametrize("wrong", [["--gpus", "8xA100-80"], ["--gpus", "8"], ["--gpus", "1xL4-24G", "--mfu", "40"]])
def test_the_command_refuses_nonsense(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--config", str(CONFIGS / "tiny.yaml"), *wrong]) == 2
    assert "Error: --" in capsys.readouterr().err


def test_the_sources_of_atlas_are_all_known() -> None:
    assert set(INSTRUCTIONS) <= set(task_types())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
