"""What a model learnt over its base, as LoRA adapters that peft reads too.

Training folds its adapters in before it saves; here they are found again from the difference of the weights. Knows
weights and the files of peft; not how vectors are computed.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gme_data.errors import FoundryError
from gme_embedder.checkpoint import load_model, save_model
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SETTINGS
from gme_embedder.model_files.locate import locate
from gme_embedder.model_files.model_folder import ModelFolder
from gme_embedder.modeling.backbone import Backbone
from gme_embedder.staging import check_precision, compare, probes, staged, write_json

_BASE = "base"
_Pair = tuple[Tensor, Tensor]
_OVERSAMPLED, _PASSES = 8, 4
_NOISE = 1e-3
"""Share of an update that may lie beyond the rank: rounding of the merged weights."""


def export_adapter(embedder: Embedder, base: str | Path, folder: Path, *, rank: int) -> None:
    """Write what a model changes in the linear layers of another's language part, as LoRA adapters.

    The change must be of low rank, as that of a model trained with adapters is. Where other weights differ too, such as
    those of the vision tower, the folder gets a base of its own: `base` with those weights, in ``base/``. Read it with
    `Embedder.load`, or with peft.

    Args:
        embedder: The model, in float32, with its adapters merged.
        base: Folder or hub name of the model that it was trained from.
        folder: Must not exist, or be empty.
        rank: Of the adapters.

    Raises:
        FoundryError: The models are built differently or do not differ, the change is of a higher rank, or what was
            written gives other vectors; nothing is left behind then.
    """
    check_precision(embedder)
    start, tokenizer, settings, _ = load_model(ModelFolder.open(locate(base)), inputs="gme")
    pairs, others = _changes(embedder, start, rank)
    if not pairs:
        raise FoundryError(f"The language part of the model is that of its base {base}: there is nothing to adapt.")
    named = os.path.relpath(base, folder) if Path(base).is_dir() else str(base)
    with staged(folder) as staging:
        if others:
            save_model(staging / _BASE, start, tokenizer, settings)
        _write_adapter(staging, pairs, rank, _BASE if others else named)
        (staging / SETTINGS).write_text(embedder.settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        items = probes()
        compare("Embedder", staging, [embedder.encode(items)], [Embedder.load(staging).encode(items)])


def _changes(embedder: Embedder, start: Backbone, rank: int) -> tuple[dict[str, _Pair], list[str]]:
    """The adapters by layer, and the names of the other weights that differ; `start` gets those of the model."""
    tuned = {name: weight.detach().cpu() for name, weight in embedder.model.qwen.named_parameters()}
    own = dict(start.named_parameters())
    if {name: weight.shape for name, weight in own.items()} != {name: one.shape for name, one in tuned.items()}:
        raise FoundryError("The model and its base are built differently.")
    linear = {f"{name}.weight" for name, module in start.named_modules() if isinstance(module, nn.Linear)}
    changed = [name for name, weight in own.items() if not torch.equal(weight, tuned[name])]
    adapted = [name for name in changed if name in linear and name.startswith("language_model.")]
    others = [name for name in changed if name not in adapted]
    for name in others:
        own[name].data.copy_(tuned[name])
    pairs = {name.removesuffix(".weight"): _factors(name, tuned[name] - own[name].detach(), rank) for name in adapted}
    return pairs, others


def _factors(name: str, update: Tensor, rank: int) -> _Pair:
    """A [rank, in] and B [out, rank] with B A = `update`."""
    width = min(rank + _OVERSAMPLED, *update.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, sizes, right = torch.svd_lowrank(update.double(), q=width, niter=_PASSES)
    root = sizes[:rank].sqrt()
    down, up = (root[:, None] * right[:, :rank].T), left[:, :rank] * root
    beyond = float((update - up @ down).norm() / update.norm())
    if beyond > _NOISE:
        raise FoundryError(
            f"{name} was changed by more than adapters of rank {rank} can: a share of {beyond:.2g} is left.",
            hint="Give the rank it was trained with, and the model it was trained from.",
        )
    return down.float().contiguous(), up.float().contiguous()


def _write_adapter(folder: Path, pairs: dict[str, _Pair], rank: int, base: str) -> None:
    weights = {}
    for layer, (down, up) in pairs.items():
        weights[f"base_model.model.{layer}.lora_A.weight"] = down
        weights[f"base_model.model.{layer}.lora_B.weight"] = up
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    kinds = sorted({layer.rpartition(".")[2] for layer in pairs})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": rf"language_model\..*\.({'|'.join(kinds)})",
        "inference_mode": True,
    }
    write_json(folder / ADAPTER_CONFIG, config)
