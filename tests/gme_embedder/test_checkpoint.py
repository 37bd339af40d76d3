"""All layouts give one model; adapters are merged; the real architectures have their published size."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLModel

from gme_data.errors import FoundryError
from gme_embedder import checkpoint
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

TEXTS = ["Santiago", "the capital of Chile is Santiago"]
SMALL = ModelConfig(text_layers=1)


@pytest.fixture(scope="module")
def small():
    return Embedder.fresh(SMALL, seed=3)


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small.save(folder)
    return folder


def rewritten(saved: Path, folder: Path, rename, *, extra=()) -> Path:
    """The same weights under other names, in one file, as a released folder: no index, no settings."""
    shutil.copytree(saved, folder)
    (folder / "gme.json").unlink()
    (folder / "model.safetensors.index.json").unlink()
    weights = {}
    for shard in sorted(folder.glob("*.safetensors")):
        weights |= {rename(name): tensor.float() for name, tensor in load_file(shard).items()}
        shard.unlink()
    weights |= dict(extra)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def before_4_52(name: str) -> str:
    """The layout of the released weights: ``model.embed_tokens...``, ``visual...``."""
    return name.replace("language_model.", "model.", 1) if name.startswith("language_model.") else name


def since_4_52(name: str) -> str:
    return f"model.{name}"


def bare(name: str) -> str:
    return name


@pytest.mark.parametrize("layout", [before_4_52, since_4_52, bare])
def test_every_layout_gives_the_same_vectors(small, saved, tmp_path, inputs, layout):
    head = {"lm_head.weight": torch.zeros(4, 576)}
    folder = rewritten(saved, tmp_path / "released", layout, extra=head)
    items = [*TEXTS, {"image": inputs.picture(), "text": "a flag"}]
    pictures = {"min_image_tokens": 4, "fit": "square", "mean": (0.82, 0.79, 0.75), "std": (0.29, 0.30, 0.34)}
    changed = {**pictures, "leading_space": True}
    found = Embedder.load(folder, inputs="gme", **changed).encode(items)
    np.testing.assert_array_equal(found, small.encode(items))


def test_settings_can_be_changed_and_are_saved_with_the_model(saved, tmp_path):
    changed = Embedder.load(saved, positions="mrope", max_image_tokens=300, truncate="released")
    changed.save(tmp_path)
    inputs = Embedder.load(tmp_path).settings.inputs
    assert (inputs.positions, inputs.pictures.max_image_tokens, inputs.truncate) == ("mrope", 300, "released")


def test_a_typo_in_a_setting_gets_a_suggestion(saved):
    with pytest.raises(FoundryError, match="Did you mean 'positions'"):
        Embedder.load(saved, position="mrope")
    with pytest.raises(FoundryError, match="sequential"):
        Embedder.load(saved, positions="grid")


@pytest.fixture
def adapted(small, saved, tmp_path):
    """A folder written by peft itself, and the vectors that peft computes."""
    peft = pytest.importorskip("peft")
    model = Qwen2VLModel.from_pretrained(saved, dtype=torch.float32)
    settings = peft.LoraConfig(r=4, lora_alpha=12, target_modules=r"language_model.*\.(q_proj|down_proj)")
    wrapped = peft.get_peft_model(model, settings)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    folder = tmp_path / "adapters"
    wrapped.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(saved)}))
    whole = Embedder(wrapped.merge_and_unload(), small.preparer.tokenizer, small.settings)
    return folder, whole.encode(TEXTS)


def test_adapters_are_merged_into_their_base(adapted, small):
    folder, expected = adapted
    found = Embedder.load(folder).encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, small.encode(TEXTS), atol=1e-3)


def test_adapters_with_names_of_the_whole_model_fit_too(adapted):
    folder, expected = adapted
    path = folder / "adapter_model.safetensors"
    prefix = "base_model.model."
    save_file({name.replace(prefix, f"{prefix}model.", 1): tensor for name, tensor in load_file(path).items()}, path)
    np.testing.assert_allclose(Embedder.load(folder).encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type IA3"),
        ({"bias": "all"}, "bias all"),
        ({"r": None}, "no description of LoRA"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
    ],
)
def test_adapters_that_are_something_else_are_refused(adapted, change, message):
    path = adapted[0] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FoundryError, match=message):
        Embedder.load(adapted[0])


def test_adapters_of_another_model_are_refused(adapted):
    path = adapted[0] / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name.replace("layers.0", "layers.7"): tensor for name, tensor in weights.items()}, path)
    with pytest.raises(FoundryError, match=r"language_model\.layers\.7\.self_attn\.q_proj"):
        Embedder.load(adapted[0])


def test_a_model_that_mlflow_logged_loads_by_its_folder(small, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "artifacts" / "stage2")
    logged = {"flavors": {"python_function": {"artifacts": {"model": {"path": "artifacts/stage2", "uri": "/gone"}}}}}
    (tmp_path / "MLmodel").write_text(json.dumps(logged))
    np.testing.assert_array_equal(Embedder.load(tmp_path).encode(TEXTS), small.encode(TEXTS))
    (tmp_path / "MLmodel").write_text("flavors: {}")
    with pytest.raises(FoundryError, match="artifact 'model'"):
        Embedder.load(tmp_path)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "artifacts/../../elsewhere"])
def test_a_logged_model_whose_weights_lie_elsewhere_is_refused(tmp_path, path):
    logged = {"flavors": {"python_function": {"artifacts": {"model": {"path": path}}}}}
    (tmp_path / "MLmodel").write_text(json.dumps(logged))
    with pytest.raises(FoundryError, match="outside of its folder"):
        Embedder.load(tmp_path)


def test_a_model_that_changes_while_it_is_read_is_refused(saved, tmp_path, monkeypatch):
    """What was hashed and what was loaded would be two models."""
    folder = shutil.copytree(saved, tmp_path / "model")
    read = checkpoint._read

    def exchanged(source, dtype):
        loaded = read(source, dtype)
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
        return loaded

    monkeypatch.setattr(checkpoint, "_read", exchanged)
    with pytest.raises(FoundryError, match=r"config\.json was changed while it was read"):
        Embedder.load(folder)


def test_a_name_that_is_nowhere_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FoundryError, match="No folder 'nobody/no-such-model'"):
        Embedder.load("nobody/no-such-model")


def released_architecture(size: str) -> Qwen2VLConfig:
    """config.json of Qwen2-VL-Instruct, the base of GME."""
    text, vocabulary = {
        "2b": ((1536, 8960, 12, 2), 151_936),
        "7b": ((3584, 18_944, 28, 4), 152_064),
    }[size]
    hidden, intermediate, heads, kv_heads = text
    return Qwen2VLConfig(
        text_config={
            "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 28,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": hidden},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "parameters", "table"), [("2b", 2_208_985_600, 233_373_696), ("7b", 7_746_378_240, 544_997_376)]
)
def test_the_released_architectures_have_their_published_size(size, parameters, table):
    with torch.device("meta"):
        model = Qwen2VLModel(released_architecture(size))
    assert model.language_model.embed_tokens.weight.numel() == table
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_released_weights_give_the_published_similarities():
    """Of the model card: two sentences and two photographs. The cards' code resizes to 256 visual tokens at least."""
    folder, photographs = os.environ.get("GME_RELEASED"), os.environ.get("GME_PHOTOGRAPHS")
    if not folder or not photographs:
        pytest.skip("needs 9 GB of weights: GME_RELEASED (folder or hub name) and GME_PHOTOGRAPHS (car.jpg, park.jpg)")
    embedder = Embedder.load(folder, dtype="bfloat16")
    car = "The Tesla Cybertruck is a battery electric pickup truck built by Tesla, Inc. since 2023."
    texts = [car, "Alibaba office."]
    pictures = [{"image": Path(photographs) / name} for name in ("car.jpg", "park.jpg")]
    found = embedder.encode(texts) @ embedder.encode(pictures).T
    np.testing.assert_allclose(found, [[0.359619, 0.065552], [0.041809, 0.374756]], atol=0.01)
    asked = embedder.encode(texts, "Find an image that matches the given text.")
    np.testing.assert_allclose(
        asked @ embedder.encode(pictures).T, [[0.429932, 0.115051], [0.049835, 0.409424]], atol=0.01
    )
    fused = embedder.encode([{"text": text, **picture} for text, picture in zip(texts, pictures, strict=True)])
    np.testing.assert_allclose(fused @ fused.T, [[1, 0.055115], [0.055115, 1]], atol=0.01)
