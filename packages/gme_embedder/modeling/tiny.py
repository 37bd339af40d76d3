"""The tiny model: a real Qwen2-VL whose language part is the first layers of SmolLM2-135M-Instruct.

A Llama layer is a Qwen2 layer with zero query, key and value biases, and with equal positions on the three rotary axes
M-RoPE is plain RoPE, so the language part computes exactly what SmolLM2 computes. The vision tower is fresh.
Does not know how it is trained or saved.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLModel

from gme_embedder.config import SPATIAL_MERGE_SIZE, ModelConfig
from gme_embedder.modeling import smollm
from gme_embedder.processing.prompt import END, IM_END, IM_START, PAD, VISION_END, VISION_START, VISION_TOKENS

_MROPE_SECTION = [8, 12, 12]  # time, height, width; the sum is half a head of 64
_FRAMES = 2  # Qwen2-VL's patches span two frames, and a still picture fills both


def build_tiny(config: ModelConfig, seed: int) -> tuple[Qwen2VLModel, Tokenizer]:
    """Returns the model in fp32 and its tokenizer; the same `seed` gives the same weights.

    Raises:
        FoundryError: The package with SmolLM2's weights is not installed.
    """
    tokenizer = smollm.tokenizer(VISION_TOKENS)
    # The random state of the caller stays as it is.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLModel(_architecture(config, tokenizer))
        _load_language(model, config)
    return model, tokenizer


def _architecture(config: ModelConfig, tokenizer: Tokenizer) -> Qwen2VLConfig:
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": smollm.HIDDEN_SIZE,
        "intermediate_size": smollm.INTERMEDIATE_SIZE,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": smollm.HEADS,
        "num_key_value_heads": smollm.KV_HEADS,
        "rms_norm_eps": smollm.NORM_EPSILON,
        "max_position_embeddings": smollm.CONTEXT,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": smollm.ROPE_THETA,
            "mrope_section": _MROPE_SECTION,
        },
        "bos_token_id": _id(tokenizer, IM_START),
        "eos_token_id": _id(tokenizer, IM_END),
        "pad_token_id": _id(tokenizer, END),
    }
    vision = {
        "depth": config.tower.depth,
        "embed_dim": config.tower.width,
        "hidden_size": smollm.HIDDEN_SIZE,
        "num_heads": config.tower.heads,
        "mlp_ratio": config.tower.mlp_ratio,
        "patch_size": config.inputs.pictures.patch,
        "spatial_merge_size": SPATIAL_MERGE_SIZE,
        "temporal_patch_size": _FRAMES,
    }
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=_id(tokenizer, PAD),
        vision_start_token_id=_id(tokenizer, VISION_START),
        vision_end_token_id=_id(tokenizer, VISION_END),
        tie_word_embeddings=False,
    )


@torch.no_grad()
def _load_language(model: Qwen2VLModel, config: ModelConfig) -> None:
    language = model.language_model
    weights = smollm.language_weights(config.text_layers)
    table = weights["embed_tokens.weight"]
    # The rows of the vision tokens are sampled around the average token; the current random state decides.
    vision_rows = table.mean(0) + table.std(0) * torch.randn(len(VISION_TOKENS), table.shape[1])
    table = torch.cat((table, vision_rows))
    # Rounded to the precision in which it is saved, so that the saved model gives the same vectors.
    weights["embed_tokens.weight"] = table.to(getattr(torch, config.embedding_dtype)).float()
    # Qwen2 has biases where Llama, and so SmolLM2, has none.
    for name, bias in language.named_parameters():
        if name.endswith("_proj.bias"):
            weights[name] = torch.zeros_like(bias)
    language.load_state_dict(weights)


def _id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return number
