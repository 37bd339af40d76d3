"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: packed vectors equal those of transformers' whole model; all load from folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AttentionInterface,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2VLConfig,
    Qwen2VLModel,
    Qwen3VLConfig,
    Qwen3VLModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gme_data.errors import FoundryError
from gme_embedder.checkpoint import Settings, with_inputs
from gme_embedder.embedder import Embedder
from gme_embedder.modeling import smollm
from gme_embedder.processing.prompt import PAD, VISION_END, VISION_START, VISION_TOKENS

TOLERANCE = 1e-5
HALF = (0.5, 0.5, 0.5)
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
KINDS = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLModel, {}, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}, {}),
    "qwen2_5_vl": (
        Qwen2_5_VLConfig, Qwen2_5_VLModel, {},
        {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "window_size": 84,
         "fullatt_block_indexes": [1, 3]},
        {},
    ),
    "qwen3_vl": (
        Qwen3VLConfig, Qwen3VLModel, {"head_dim": 24},
        {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "patch_size": 16,
         "num_position_embeddings": 36, "deepstack_visual_indexes": [2, 0]},
        {"patch": 16, "mean": HALF, "std": HALF},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return smollm.tokenizer(VISION_TOKENS)


@pytest.fixture(scope="module", params=KINDS)
def backbone(request, tokenizer):
    """A random model with every weight in use, and its picture settings."""
    torch.manual_seed(2)
    make_config, make_model, text, vision, pictures = KINDS[request.param]
    rope = ROPE | ({"mrope_section": [4, 4, 4]} if "head_dim" in text else {})
    config = make_config(
        text_config=TEXT | text | {"vocab_size": tokenizer.get_vocab_size(), "rope_parameters": rope},
        vision_config={"depth": 4, "num_heads": 2, **vision},
        image_token_id=tokenizer.token_to_id(PAD),
        vision_start_token_id=tokenizer.token_to_id(VISION_START),
        vision_end_token_id=tokenizer.token_to_id(VISION_END),
    )
    model = make_model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, pictures


@pytest.fixture
def items(inputs):
    return [
        {"text": inputs.text(12)},
        {"image": inputs.picture(150, 100)},
        {"image": inputs.picture(97, 203), "text": inputs.text(5)},
        {"image": inputs.picture(150, 100), "text": "one"},
    ]


@torch.no_grad()
def whole(model, embedder, items, positions):
    """The whole model of transformers on a right-padded batch, pictures by its own processor."""
    config = embedder.settings.inputs.pictures
    processor = Qwen2VLImageProcessorPil(
        patch_size=config.patch, min_pixels=4 * config.token_side**2, max_pixels=1280 * config.token_side**2,
        image_mean=config.mean, image_std=config.std,
    )  # fmt: skip
    tokenised = embedder.preparer.tokenise(items)
    longest = max(len(one.ids) for one in tokenised)
    ids = torch.tensor([[*one.ids, *[0] * (longest - len(one.ids))] for one in tokenised])
    mask = torch.tensor([[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in tokenised])
    made = processor(images=[item["image"] for item in items if "image" in item], return_tensors="pt")
    sequential = torch.arange(longest).expand(3, len(items), -1) if positions == "sequential" else None
    states = model(
        input_ids=ids, attention_mask=mask, position_ids=sequential, use_cache=False,
        pixel_values=made["pixel_values"], image_grid_thw=made["image_grid_thw"],
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    ).last_hidden_state  # fmt: skip
    return functional.normalize(states[torch.arange(len(items)), mask.sum(1) - 1], dim=-1).numpy()


def embedder_of(backbone, tokenizer, **changes):
    model, pictures = backbone
    settings = with_inputs(Settings(), {**pictures, "min_image_tokens": 4, "resize": "once", **changes})
    return Embedder(model, tokenizer, settings)


@pytest.mark.parametrize("positions", ["sequential", "mrope"])
def test_packed_vectors_equal_those_of_the_whole_model(backbone, tokenizer, items, positions):
    embedder = embedder_of(backbone, tokenizer, positions=positions)
    expected = whole(backbone[0], embedder, items, positions)
    np.testing.assert_allclose(embedder.encode(items), expected, atol=TOLERANCE)
    other = embedder_of(backbone, tokenizer, positions={"mrope": "sequential", "sequential": "mrope"}[positions])
    assert np.abs(other.encode(items)[1:] - expected[1:]).max() > 100 * TOLERANCE


def test_every_backbone_comes_back_from_its_folder(backbone, tokenizer, items, tmp_path):
    embedder = embedder_of(backbone, tokenizer)
    embedder.save(tmp_path)
    np.testing.assert_array_equal(Embedder.load(tmp_path).encode(items), embedder.encode(items))


@pytest.mark.parametrize("layout", ["model.language_model.", "language_model."])
def test_folders_of_the_hub_load_with_their_own_picture_settings(backbone, tokenizer, items, tmp_path, layout):
    """As Qwen publishes them: names beside a language head, no gme.json, a preprocessor_config.json."""
    embedder, config = embedder_of(backbone, tokenizer), backbone[1]
    embedder.save(tmp_path)
    (tmp_path / "gme.json").unlink()
    weights = {"lm_head.weight": torch.zeros(4, 64)}
    prefix = layout.removesuffix("language_model.")
    for shard in sorted(tmp_path.glob("*.safetensors")):
        weights |= {prefix + name: tensor for name, tensor in load_file(shard).items()}
        shard.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if config:
        found = {"patch_size": config["patch"], "image_mean": config["mean"], "image_std": config["std"]}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(found))
    loaded = Embedder.load(tmp_path, inputs="gme", min_image_tokens=4, resize="once")
    np.testing.assert_array_equal(loaded.encode(items), embedder.encode(items))


def test_picture_settings_of_another_tower_are_refused(backbone, tokenizer, tmp_path):
    embedder_of(backbone, tokenizer).save(tmp_path)
    settings = json.loads((tmp_path / "gme.json").read_text())
    settings["inputs"]["pictures"] |= {"patch": 18, "side": 72, "page_side": 72}
    (tmp_path / "gme.json").write_text(json.dumps(settings))
    with pytest.raises(FoundryError, match=r"patches of 1[46] px, the picture settings say 18"):
        Embedder.load(tmp_path)


def test_another_kind_of_model_is_refused(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_v"}')
    with pytest.raises(FoundryError, match="Did you mean 'qwen2_5_vl'"):
        Embedder.load(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(backbone, tokenizer, items, tmp_path, dtype):
    embedder = embedder_of(backbone, tokenizer)
    embedder.save(tmp_path)
    expected = embedder.encode(items)
    half = Embedder.load(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in half.model.parameters()} == {getattr(torch, dtype)}
    assert (half.encode(items) * expected).sum(1).min() > 0.999


def varlen_by_hand(
    _module, query, key, value, attention_mask=None, scaling=None, is_causal=True, *, cu_seq_lens_q, cu_seq_lens_k,
    max_length_q, max_length_k,
):  # fmt: skip
    """What FlashAttention's variable-length kernel is documented to compute: a causal mask ends at the last key."""
    assert attention_mask is None
    mixed = []
    borders = (
        zip(cu_seq_lens_q.tolist(), cu_seq_lens_q.tolist()[1:], strict=False),
        zip(cu_seq_lens_k.tolist(), cu_seq_lens_k.tolist()[1:], strict=False),
    )
    for (q0, q1), (k0, k1) in zip(*borders, strict=True):
        assert 0 < q1 - q0 <= max_length_q
        assert 0 < k1 - k0 <= max_length_k
        allowed = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0)) if is_causal else None
        mixed.append(
            functional.scaled_dot_product_attention(
                query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1], attn_mask=allowed, scale=scaling,
                enable_gqa=True,
            )
        )  # fmt: skip
    assert q1 == query.shape[2]
    assert k1 == key.shape[2]
    return torch.cat(mixed, dim=2).transpose(1, 2), None


@pytest.mark.parametrize("count", [1, 4])
def test_a_variable_length_kernel_gives_the_same(backbone, tokenizer, items, count):
    """The path of GPUs, with a kernel written out: one item has no shared prefix, four have one."""
    AttentionInterface.register("varlen_by_hand", varlen_by_hand)
    embedder = embedder_of(backbone, tokenizer)
    expected = embedder.encode(items[:count], "Find it.")
    model, _ = backbone
    packed = Embedder(model, tokenizer, embedder.settings, attention="varlen_by_hand")
    np.testing.assert_allclose(packed.encode(items[:count], "Find it."), expected, atol=TOLERANCE)
    batch = packed.preparer.prepare(items[:count], "Find it.")
    with torch.no_grad():  # the prefix among the tokens, as in training
        np.testing.assert_allclose(packed.model.embed(batch).numpy(), expected, atol=TOLERANCE)
    model.set_attn_implementation("sdpa")


def test_a_kernel_that_is_not_there_is_explained(backbone, tokenizer):
    for name in ("flash_attention_2", "no_such_kernel"):
        with pytest.raises(FoundryError, match=name):
            Embedder(backbone[0], tokenizer, Settings(), attention=name)


@pytest.mark.gpu
def test_flash_attention_gives_the_same_on_a_gpu(backbone, tokenizer, items, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and the package flash-attn")
    pytest.importorskip("flash_attn", reason="needs a CUDA device and the package flash-attn")
    embedder = embedder_of(backbone, tokenizer)
    embedder.save(tmp_path)
    flash = Embedder.load(tmp_path, device="cuda", dtype="bfloat16", attention="flash_attention_2")
    assert (flash.encode(items) * embedder.encode(items)).sum(1).min() > 0.999
