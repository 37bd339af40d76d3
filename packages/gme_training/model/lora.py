"""Low-rank adapters on the language part, by peft.

Adapters sit on the linear layers during training and are merged into them before saving, so that a saved model is a
plain one. Knows modules; not the loop.
"""

from __future__ import annotations

import torch
from torch import nn

from gme_training.config import LoraConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a language layer, by the names that transformers gives them."""


def add_adapters(language: nn.Module, config: LoraConfig, seed: int) -> list[nn.Parameter]:
    """Puts adapters on every linear layer of `language` in place and returns their parameters.

    The same `seed` gives the same adapters on every rank.
    """
    import peft

    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=list(TARGETS)
    )
    # Forked: with adapters the random numbers of everything that follows are the same as without.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, language)
    return [parameter for name, parameter in language.named_parameters() if "lora_" in name]


def merge_adapters(language: nn.Module) -> None:
    """Merges the adapters into their base layers and removes them."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(language.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = language.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
