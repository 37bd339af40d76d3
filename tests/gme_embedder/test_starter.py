"""The starter: what stage 0 changed is written small, and put back on a fresh model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2VLModel

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_embedder.config import ModelConfig, TowerConfig
from gme_embedder.embedder import Embedder
from gme_embedder.starter.weights import apply_starter, write_starter

RANK = 4
SMALL = ModelConfig(text_layers=1, tower=TowerConfig(depth=1, width=64, heads=2))


@pytest.fixture(scope="module")
def fresh() -> Qwen2VLModel:
    return Embedder.fresh(SMALL, seed=3).model.qwen


@pytest.fixture(scope="module")
def trained(fresh: Qwen2VLModel) -> Qwen2VLModel:
    """As adapters leave it: matrices of the language part moved by their rank, its norm and the tower at will."""
    model = copy.deepcopy(fresh)
    chance = torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("visual."):
                parameter.add_(torch.randn(parameter.shape, generator=chance), alpha=0.05)
            elif name.endswith("proj.weight"):
                thin = (torch.randn(size, RANK, generator=chance) for size in parameter.shape)
                parameter.add_(torch.einsum("or,ir->oi", *thin), alpha=0.01)
            elif name.endswith("norm.weight"):
                parameter.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def written(trained: Qwen2VLModel, fresh: Qwen2VLModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starter") / "weights.safetensors"
    assert write_starter(trained, fresh, path, RANK) < 1e-2
    return path


def test_a_fresh_model_of_any_seed_becomes_the_trained_one(trained: Qwen2VLModel, written: Path):
    other = Embedder.fresh(SMALL, seed=99).model.qwen
    apply_starter(other, sha256_file(written), written)
    for (name, found), expected in zip(other.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_too_low_a_rank_says_what_it_misses(trained: Qwen2VLModel, fresh: Qwen2VLModel, tmp_path: Path):
    assert 0.3 < write_starter(trained, fresh, tmp_path / "thin.safetensors", rank=2) < 1


def test_the_words_of_smollm_are_not_shipped(written: Path):
    shipped = load_file(written)
    assert max(max(tensor.shape) for tensor in shipped.values()) < 10_000
    assert not any(name.endswith("mlp.gate_proj.weight") for name in shipped if name.startswith("language_model."))


def test_another_file_is_refused(fresh: Qwen2VLModel, written: Path, tmp_path: Path):
    with pytest.raises(FoundryError, match="not the starter") as error:
        apply_starter(copy.deepcopy(fresh), "0" * 64, written)
    assert "make starter" in (error.value.hint or "")
    with pytest.raises(FoundryError, match="not the starter"):
        apply_starter(copy.deepcopy(fresh), "0" * 64, tmp_path / "none.safetensors")


def test_a_model_of_another_shape_is_refused_before_anything_is_changed(written: Path):
    other = Embedder.fresh(SMALL.model_copy(update={"tower": TowerConfig(depth=1, width=96, heads=2)}), 3).model.qwen
    before = {name: one.clone() for name, one in other.named_parameters()}
    with pytest.raises(FoundryError, match="does not fit") as error:
        apply_starter(other, sha256_file(written), written)
    assert "model.starter" in (error.value.hint or "")
    assert all(torch.equal(one, before[name]) for name, one in other.named_parameters())
