"""Low-rank adapters, as peft writes them, merged into the weights of their base.

    W' = W + scale * B A,  scale = alpha / r, or alpha / sqrt(r) with ``use_rslora``      (arXiv:2106.09685, 2312.03732)

Reads their files itself, so that no peft is needed to use a model.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gme_data.errors import FoundryError
from gme_embedder.model_files.adapter_config import read_adapter
from gme_embedder.model_files.file_names import ADAPTER_WEIGHTS
from gme_embedder.model_files.model_folder import ModelFolder

_PREFIXES = (
    (r"^base_model\.model\.", ""),
    (r"^model\.(language_model|visual)\.", r"\1."),
    (r"^model\.", "language_model."),
)
"""Maps the names that peft gives to layers of any of the three layouts of Qwen2-VL to those of a bare backbone."""
_PAIR = re.compile(r"^(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")


@torch.no_grad()
def merge_adapter(source: ModelFolder, model: nn.Module) -> None:
    """Adds the update of each adapter to the weight of its layer, in place.

    Raises:
        FoundryError: The weights can't be read, or a name or shape does not fit the model; lists them.
    """
    adapter = read_adapter(source.folder)
    pairs = _pairs(source.path(ADAPTER_WEIGHTS))
    modules = dict(model.named_modules())
    unknown = sorted(layer for layer in pairs if not isinstance(modules.get(layer), nn.Linear))
    incomplete = sorted(layer for layer, pair in pairs.items() if set(pair) != {"A", "B"})
    if not pairs or unknown or incomplete:
        raise FoundryError(
            f"The adapters in {adapter.folder} do not fit their base {adapter.base}. "
            f"{len(pairs)} adapters; layers that it has not: {', '.join(unknown) or 'none'}; "
            f"adapters with one side only: {', '.join(incomplete) or 'none'}."
        )
    for layer, pair in pairs.items():
        weight = modules[layer].weight
        # In float32, and rounded once to the precision of the weight.
        update = adapter.scale * (pair["B"].float() @ pair["A"].float())
        if update.shape != weight.shape:
            raise FoundryError(
                f"The adapter on {layer} in {adapter.folder} changes {list(update.shape)} weights, "
                f"the base has {list(weight.shape)}."
            )
        weight += update.to(weight)


def _pairs(path: Path) -> dict[str, dict[str, Tensor]]:
    """Returns by layer name ``{"A": [r, in], "B": [out, r]}``."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FoundryError(f"{path} can't be read: {error}") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        match = _PAIR.match(name)
        if match is None:
            raise FoundryError(f"{path}: '{name}' is no LoRA weight.")
        pairs.setdefault(_backbone_name(match["layer"]), {})[match["side"]] = tensor
    return pairs


def _backbone_name(layer: str) -> str:
    for pattern, replacement in _PREFIXES:
        layer = re.sub(pattern, replacement, layer)
    return layer
