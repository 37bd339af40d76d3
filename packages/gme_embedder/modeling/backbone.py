"""The models of transformers that can be the backbone of an embedder, selected by the model type in config.json.

All have a `language_model` and a `visual`; only `packed` and `tower` know how they differ inside.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from safetensors import safe_open
from transformers import Qwen2_5_VLModel, Qwen2VLModel, Qwen3VLModel
from transformers.utils import is_flash_attn_2_available, logging

from gme_data.errors import FoundryError, did_you_mean
from gme_data.structured import read_json
from gme_embedder.model_files.file_names import CONFIG
from gme_embedder.model_files.model_folder import ModelFolder

Backbone = Qwen2VLModel | Qwen2_5_VLModel | Qwen3VLModel

_CLASSES: dict[str, type[Backbone]] = {
    "qwen2_vl": Qwen2VLModel,
    "qwen2_5_vl": Qwen2_5_VLModel,
    "qwen3_vl": Qwen3VLModel,
}
_KEY_MAPPING = {r"^model\.(language_model|visual)\.": r"\1."}
"""Maps the names of weights in checkpoints of transformers >= 4.52 with an lm_head; transformers maps older ones."""


def read_backbone(source: ModelFolder, dtype: torch.dtype) -> tuple[Backbone, dict[str, object]]:
    """Reads a model from its files; returns also transformers' report of names of weights that did not fit.

    Raises:
        FoundryError: config.json is of another kind of model.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers is untyped here
    kind: Any = backbone_class(source)
    config = kind.config_class.from_dict(_config(source))
    with ExitStack() as files:
        # Without a folder, in which transformers would select files by rules of its own.
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=_slices(source, files),
            dtype=dtype,
            output_loading_info=True,
            key_mapping=_KEY_MAPPING,
        )
    model.config.name_or_path = str(source.folder)
    return model, report


def _slices(source: ModelFolder, files: ExitStack) -> dict[str, Any]:
    """Returns lazy slices of all weights by name, which can be read as long as `files` are open."""
    slices: dict[str, Any] = {}
    for name in source.weights:
        shard = files.enter_context(safe_open(source.path(name), framework="pt", device="cpu"))
        in_shard = {weight: shard.get_slice(weight) for weight in shard.keys()}  # noqa: SIM118 - it is no mapping
        if repeated := sorted(slices.keys() & in_shard.keys()):
            raise FoundryError(f"{source.path(name)}: the weight {repeated[0]} lies in another file too.")
        slices |= in_shard
    return slices


def to_precision(backbone: Backbone, dtype: torch.dtype) -> None:
    """Casts the weights in place. Buffers, such as the rotary frequencies, keep their precision."""
    for parameter in backbone.parameters():
        parameter.data = parameter.data.to(dtype)


def choose_kernel(backbone: Backbone, device: str, name: str | None) -> str | None:
    """Selects a variable-length attention kernel and prepares `backbone` for it; returns None for no kernel.

    Args:
        backbone: The model in its final precision.
        device: Where it will run.
        name: Its name in transformers; None takes FlashAttention 2 if it is installed and fits device and precision.

    Raises:
        FoundryError: The kernel is unknown or not installed.
    """
    half = next(backbone.parameters()).dtype != torch.float32
    if name is None:
        if not (device.startswith("cuda") and half and is_flash_attn_2_available()):
            return None
        name = "flash_attention_2"
    try:
        backbone.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        raise FoundryError(
            f"Attention '{name}' can't be used: {error}", hint="Leave it out, or install the package it needs."
        ) from error
    return name


def backbone_class(source: ModelFolder) -> type[Backbone]:
    """Returns the class that config.json names.

    Raises:
        FoundryError: No JSON, or of another kind of model.
    """
    kind = str(_config(source).get("model_type"))
    if kind not in _CLASSES:
        raise FoundryError(
            f"{source.path(CONFIG)} is of a model of type '{kind}'.{did_you_mean(kind, _CLASSES)}",
            hint=f"Types that can be loaded: {', '.join(_CLASSES)}.",
        )
    return _CLASSES[kind]


def _config(source: ModelFolder) -> dict[str, Any]:
    return read_json(source.path(CONFIG), dict[str, Any])
