"""Costs by shape are those of the real modules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.architectures import qwen_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLModel

from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED, ModelConfig, TowerConfig
from gme_embedder.costs import (
    PUBLISHED,
    Architecture,
    EncodingLoad,
    LanguageShape,
    TowerShape,
    architecture_of,
    encoding_load,
    forward_flops,
    tiny_architecture,
)
from gme_embedder.modeling.model import EmbedderModel
from gme_embedder.modeling.tiny import build_tiny
from gme_embedder.processing.batch import TokenisedItem, pack


def counted(model: Qwen2VLModel) -> tuple[int, int, int]:
    table = model.language_model.embed_tokens.weight.numel()
    text = sum(parameter.numel() for parameter in model.language_model.parameters()) - table
    return table, text, sum(parameter.numel() for parameter in model.visual.parameters())


def parts(shape: Architecture) -> tuple[int, int, int]:
    return shape.language.table, shape.language.parameters, shape.tower.parameters


@pytest.mark.parametrize("name", ["Qwen/Qwen2-VL-2B-Instruct", "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct"])
def test_published_models_have_so_many_parameters(name: str) -> None:
    with torch.device("meta"):
        model = Qwen2VLModel(qwen_config(PUBLISHED[name]))
    assert parts(architecture_of(name)) == counted(model)
    # What the released files hold, as Hugging Face counts them.
    assert architecture_of(name).parameters == {"2B": 2_208_985_600, "7B": 7_746_378_240}[name.split("-")[-2]]


def test_the_tiny_model_has_so_many_parameters() -> None:
    config = ModelConfig(text_layers=2, tower=TowerConfig(depth=1, width=64, heads=2))
    assert parts(tiny_architecture(config)) == counted(build_tiny(config, seed=1)[0])


def test_a_folder_is_read_in_both_layouts_of_its_config(tmp_path: Path) -> None:
    shape = tiny_architecture(ModelConfig())
    qwen_config(shape).save_pretrained(tmp_path)
    assert architecture_of(str(tmp_path)) == shape
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw.pop("text_config"), **raw}))  # as before transformers 4.52
    assert architecture_of(str(tmp_path)) == shape


def test_what_is_not_known_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="Did you mean 'Qwen/Qwen2-VL-2B-Instruct'"):
        architecture_of("Qwen/Qwen2VL-2B-Instruct")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FoundryError, match="type 'bert'"):
        architecture_of(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl", "vision_config": {}}')
    with pytest.raises(FoundryError, match="hidden_size"):
        architecture_of(str(tmp_path))


@pytest.mark.parametrize(("length", "cells"), [(40, 0), (30, 2), (45, 3)])
def test_a_forward_has_so_many_operations(length: int, cells: int) -> None:
    # Short enough for attention by plain products, which torch's counter sees.
    shape = small()
    torch.manual_seed(0)
    model = EmbedderModel(Qwen2VLModel(qwen_config(shape)), RELEASED.pictures)
    batch = pack(items(count=6, length=length, cells=cells), "sequential")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embed(batch)
    head = batch.layout.prefix
    load = encoding_load(6, length, prefix=head, visual=cells**2) + EncodingLoad(head, 0, head**2, 0)
    assert forward_flops(shape, load).total == pytest.approx(counter.get_total_flops(), rel=0.005)


def small() -> Architecture:
    return Architecture(LanguageShape(1000, 128, 352, 3, 4, 2, 32), TowerShape(2, 64, 256, 4, 14, 128))


def items(count: int, length: int, cells: int, head: int = 12) -> list[TokenisedItem]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        pixels = rng.integers(0, 255, (cells * 28, cells * 28, 3), dtype=np.uint8) if cells else None
        own = [100 + number, *rng.integers(10, 900, length - 1 - cells**2).tolist()]
        ids = np.array([*range(10, 10 + head), *[5] * cells**2, *own], dtype=np.int32)
        made.append(TokenisedItem(ids, head, pixels, (cells, cells)))
    return made
