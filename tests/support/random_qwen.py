"""A small Qwen2-VL with every weight drawn at random: biases and norms count too."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLModel

from gme_embedder.processing.prompt import PAD


def random_qwen(tokenizer: Tokenizer, seed: int) -> Qwen2VLModel:
    torch.manual_seed(seed)
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 64},
        image_token_id=tokenizer.token_to_id(PAD),
    )  # fmt: skip
    model = Qwen2VLModel(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model
