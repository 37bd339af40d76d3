"""Configurations of transformers for shapes of ours."""

from __future__ import annotations

from transformers import Qwen2VLConfig

from gme_embedder.costs import Architecture


def qwen_config(shape: Architecture) -> Qwen2VLConfig:
    """For `Qwen2VLModel`."""
    text, tower = shape.language, shape.tower
    third = text.head_dim // 8
    return Qwen2VLConfig(
        text_config={
            "vocab_size": text.vocabulary, "hidden_size": text.width, "intermediate_size": text.inner,
            "num_hidden_layers": text.layers, "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6,
                "mrope_section": [text.head_dim // 2 - 2 * third, third, third],
            },
        },
        vision_config={
            "depth": tower.depth, "embed_dim": tower.width, "num_heads": tower.heads,
            "mlp_ratio": tower.inner // tower.width, "hidden_size": tower.out, "patch_size": tower.patch,
        },
        image_token_id=5,
    )  # fmt: skip
