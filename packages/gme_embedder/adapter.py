"""Folders with low-rank adapters, as peft writes them: found, checked, and folded into the weights of their base.

    W' = W + scale * B A,  scale = alpha / r, or alpha / sqrt(r) with ``use_rslora``      (arXiv:2106.09685, 2312.03732)

Reads files only; no peft is needed to use a model.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gme_data.errors import FoundryError
from gme_embedder.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from gme_embedder.locate import locate

_UNSUPPORTED = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
)
_PREFIXES = (
    (r"^base_model\.model\.", ""),
    (r"^model\.(language_model|visual)\.", r"\1."),
    (r"^model\.", "language_model."),
)
"""From the names of peft over any of the three layouts of Qwen2-VL to those of a bare backbone."""
_PAIR = re.compile(r"^(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adapters on disk: their folder, the base they belong to as written there, and the scale of the update."""

    folder: Path
    base: str
    scale: float


def read_adapter(folder: Path) -> Adapter:
    """Read the description of adapters.

    Raises:
        FoundryError: No JSON, not LoRA, no base named, or a variant whose update is another formula.
    """
    path = folder / ADAPTER_CONFIG
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = int(raw["r"]), float(raw["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise FoundryError(f"{path} is no description of LoRA adapters: {error!r}") from error
    odd = [name for name in _UNSUPPORTED if raw.get(name)]
    if raw.get("peft_type") != "LORA" or raw.get("bias", "none") != "none" or odd:
        what = ", ".join(odd) or f"peft_type {raw.get('peft_type')}, bias {raw.get('bias')}"
        raise FoundryError(
            f"{path}: adapters of this kind can't be read ({what}).",
            hint="Merge them with peft (merge_and_unload), save the whole model and load that.",
        )
    base = raw.get("base_model_name_or_path")
    if not base:
        raise FoundryError(
            f"{path} names no base_model_name_or_path.", hint="Write the base model's folder or hub name."
        )
    return Adapter(folder, str(base), alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank))


def base_folder(adapter: Adapter) -> Path:
    """The folder of the model that adapters belong to: a path, taken from their own folder first, or a hub name.

    Raises:
        FoundryError: No such folder or model, or the adapters name themselves.
    """
    inside = adapter.folder / adapter.base
    folder = locate(inside if inside.is_dir() else adapter.base)
    if folder.resolve() == adapter.folder.resolve():
        raise FoundryError(
            f"{adapter.folder / ADAPTER_CONFIG} names its own folder as base_model_name_or_path.",
            hint="Write the base model's folder or hub name.",
        )
    return folder


@torch.no_grad()
def fold_in(adapter: Adapter, model: nn.Module) -> None:
    """Add the update of each adapter to the weight below it, in place.

    Raises:
        FoundryError: The weights can't be read, or a name or shape does not fit the model; lists them.
    """
    pairs = _pairs(adapter.folder)
    modules = dict(model.named_modules())
    unknown = sorted(layer for layer in pairs if not isinstance(modules.get(layer), nn.Linear))
    halves = sorted(layer for layer, pair in pairs.items() if set(pair) != {"A", "B"})
    if not pairs or unknown or halves:
        raise FoundryError(
            f"The adapters in {adapter.folder} do not fit their base {adapter.base}. "
            f"{len(pairs)} adapters; layers that it has not: {', '.join(unknown) or 'none'}; "
            f"adapters with one side only: {', '.join(halves) or 'none'}."
        )
    for layer, pair in pairs.items():
        weight = modules[layer].weight
        update = adapter.scale * (pair["B"].float() @ pair["A"].float())
        if update.shape != weight.shape:
            raise FoundryError(
                f"The adapter on {layer} in {adapter.folder} changes {list(update.shape)} weights, "
                f"the base has {list(weight.shape)}."
            )
        weight += update.to(weight)


def _pairs(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Layer name -> {"A": [r, in], "B": [out, r]}."""
    try:
        weights = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise FoundryError(f"{folder / ADAPTER_WEIGHTS} can't be read: {error}") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        match = _PAIR.match(name)
        if match is None:
            raise FoundryError(f"{folder / ADAPTER_WEIGHTS}: '{name}' is no LoRA weight.")
        pairs.setdefault(_plain(match["layer"]), {})[match["side"]] = tensor
    return pairs


def _plain(layer: str) -> str:
    for pattern, replacement in _PREFIXES:
        layer = re.sub(pattern, replacement, layer)
    return layer
