"""A model folder: Hugging Face layout, safetensors only, with the input settings beside the weights.

The frozen token table has a separate shard, so that versions of a model with the same table share its bytes. Knows
files and names of weights; not what the model computes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gme_data.errors import FoundryError
from gme_data.settings import Frozen, parse_config
from gme_data.structured import read_json
from gme_embedder.config import RELEASED, EmbeddingDtype, InputConfig
from gme_embedder.model_files.family import Inputs, require_gme
from gme_embedder.model_files.file_names import CONFIG, INDEX, PROCESSOR, SETTINGS, TOKENIZER, WEIGHTS
from gme_embedder.model_files.model_folder import ModelFolder
from gme_embedder.modeling.adapter import merge_adapter
from gme_embedder.modeling.backbone import Backbone, backbone_class, read_backbone
from gme_embedder.processing.prompt import END, VISION_TOKENS

_TABLE = "language_model.embed_tokens.weight"
_LM_HEAD = "lm_head."
"""The weights with this prefix, which the released checkpoints have, are dropped on load."""


class Settings(Frozen):
    """The content of ``gme.json``."""

    inputs: InputConfig = RELEASED
    """How items become inputs."""
    embedding_dtype: EmbeddingDtype = "float32"
    """Precision in which the frozen token table is stored."""


def save_model(folder: Path, model: Backbone, tokenizer: Tokenizer, settings: Settings) -> None:
    """Writes a model folder; the same weights give the same bytes.

    Files: config.json, one safetensors shard each for the token table, the language layers and the vision tower with
    their index, the tokenizer, and gme.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_config(folder, model)
    _save_weights(folder, model, settings)
    # Saved by transformers' class, so that AutoTokenizer loads it with its special tokens.
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # transformers is untyped here
        tokenizer_object=tokenizer, pad_token=END, eos_token=END, extra_special_tokens=list(VISION_TOKENS)
    )
    wrapped.save_pretrained(folder)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_model(
    source: ModelFolder, dtype: torch.dtype = torch.float32, inputs: Inputs | None = None
) -> tuple[Backbone, Tokenizer, Settings, str]:
    """Reads a model.

    It may be a folder that `save_model` wrote; a Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint without ``gme.json``
    (settings as the released GME models), which its files or `inputs` declare a GME model; or LoRA adapters, which are
    merged into the base that they name.

    Args:
        source: The files.
        dtype: Type of the weights in memory.
        inputs: See `family.require_gme`.

    Returns:
        The model, its tokenizer, its settings, and the evidence that its inputs are made as GME's.

    Raises:
        FoundryError: A file is missing, damaged or was changed meanwhile, or names of weights are missing or unknown;
            lists them. The folder is of another family; see `family.require_gme`.
    """
    _check_files(source)
    evidence = require_gme(source.folder, inputs)
    model, tokenizer, settings = _read(source, dtype)
    source.require_unchanged()
    return model, tokenizer, settings, evidence


def _check_files(source: ModelFolder) -> None:
    """Checks, before weights are read, that there is a model of a kind that can be loaded; for adapters, their base."""
    if source.base:
        return _check_files(source.base)
    for name in (CONFIG, TOKENIZER):
        source.path(name)
    backbone_class(source)
    if not source.weights:
        source.path(WEIGHTS)
    return None


def _read(source: ModelFolder, dtype: torch.dtype) -> tuple[Backbone, Tokenizer, Settings]:
    if source.base:
        model, tokenizer, settings = _read(source.base, dtype)
        merge_adapter(source, model)
        return model, tokenizer, read_settings(source) if source.has(SETTINGS) else settings
    folder = source.folder
    try:
        model, report = read_backbone(source, dtype)
        tokenizer = Tokenizer.from_file(str(source.path(TOKENIZER)))
    except FoundryError:
        raise
    # The library of the tokenizer raises a bare Exception for a damaged file.
    except Exception as error:
        raise FoundryError(
            f"The model in {folder} can't be read: {error}", hint="Delete the folder and run its step again."
        ) from error
    _check_weight_names(folder, report)
    _check_finite(folder, model)
    settings = read_settings(source)
    _check_patch_size(folder, model, settings)
    return model, tokenizer, settings


def read_settings(source: ModelFolder) -> Settings:
    """Returns the settings of a model; without a ``gme.json``, those of the released models with its picture fields.

    Raises:
        FoundryError: ``gme.json`` or ``preprocessor_config.json`` is no JSON or has bad fields.
    """
    if source.has(SETTINGS):
        path = source.path(SETTINGS)
        return parse_config(read_json(path, dict[str, Any]), Settings, where=str(path))
    processor = read_json(source.path(PROCESSOR), dict[str, Any]) if source.has(PROCESSOR) else {}
    names = {"patch_size": "patch", "image_mean": "mean", "image_std": "std"}
    changes = {field: processor[name] for name, field in names.items() if name in processor}
    return with_inputs(Settings(), changes, where=str(source.folder / PROCESSOR))


def with_inputs(settings: Settings, changes: dict[str, Any], where: str = "Embedder.load") -> Settings:
    """Returns settings with some fields of the inputs or their pictures changed; the names of both are distinct.

    Raises:
        FoundryError: An unknown field, or a value that it does not take.
    """
    inputs = settings.inputs.model_dump()
    for name, value in changes.items():
        (inputs["pictures"] if name in inputs["pictures"] else inputs)[name] = value
    return settings.model_copy(update={"inputs": parse_config(inputs, InputConfig, where=where)})


def _save_config(folder: Path, model: Backbone) -> None:
    model.config.save_pretrained(folder)
    # The config states one dtype: without it, transformers takes that of the first shard, the token table.
    raw = read_json(folder / CONFIG, dict[str, Any])
    for part in (raw["text_config"], raw["vision_config"]):
        part.pop("dtype", None)
    raw["dtype"] = str(model.dtype).removeprefix("torch.")
    (folder / CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_weights(folder: Path, model: Backbone, settings: Settings) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights[_TABLE] = weights[_TABLE].to(getattr(torch, settings.embedding_dtype))
    shards: list[dict[str, Tensor]] = [
        {_TABLE: weights.pop(_TABLE)},
        {name: tensor for name, tensor in weights.items() if name.startswith("language_model.")},
        {name: tensor for name, tensor in weights.items() if not name.startswith("language_model.")},
    ]
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _check_weight_names(folder: Path, report: dict[str, object]) -> None:
    missing, unknown, wrong = (
        sorted(str(name) for name in _names(report, kind) if not str(name).startswith(_LM_HEAD))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    )
    if missing or unknown or wrong:
        lists = {"missing": missing, "unknown": unknown, "of another shape": wrong}
        problems = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names)
        raise FoundryError(f"The weights in {folder} do not fit its config.json. {problems}")


def _check_finite(folder: Path, model: Backbone) -> None:
    # The sum is NaN or infinite if any weight is, and needs no mask of the size of the weights.
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight.sum())]
    if broken:
        raise FoundryError(
            f"The weights in {folder} hold numbers that are not finite: {', '.join(broken)}.",
            hint="The training that wrote them diverged, or the file is damaged: take an earlier checkpoint.",
        )


def _check_patch_size(folder: Path, model: Backbone, settings: Settings) -> None:
    vision: Any = model.config.vision_config
    expected, configured = int(vision.patch_size), settings.inputs.pictures.patch
    if expected != configured:
        raise FoundryError(
            f"{folder}: the tower takes patches of {expected} px, the picture settings say {configured}.",
            hint=f"Set patch_size in {PROCESSOR} (or pictures.patch in {SETTINGS}) to {expected}.",
        )


def _names(report: dict[str, object], kind: str) -> list[object]:
    names = report.get(kind)
    return list(names) if isinstance(names, list | set | tuple) else []
