"""Export of the difference between a model and its base as LoRA adapters, which peft reads too.

Training merges its adapters before it saves; here they are recovered from the difference of the weights. Knows weights
and the files of peft; not how vectors are computed.
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
_LowRank = tuple[Tensor, Tensor]
_OVERSAMPLING, _ITERATIONS = 8, 4
"""Parameters of the randomised SVD (Halko et al. 2009, arXiv:0909.4061), as `torch.svd_lowrank` has them."""
_MAX_RESIDUAL = 1e-3
"""The largest share of an update beyond the rank (Frobenius norm) that counts as rounding of the merged weights."""


def export_adapter(embedder: Embedder, base: str | Path, folder: Path, *, rank: int) -> None:
    """Writes the changes of a model in the linear layers of its base's language part as LoRA adapters.

    The change must be of low rank, as that of a model trained with adapters is. If other weights differ too, such as
    those of the vision tower, the folder gets its own base in ``base/``: `base` with these weights. Read it with
    `Embedder.load`, or with peft.

    Args:
        embedder: The model, in float32, with its adapters merged.
        base: Folder or hub name of the model that it was trained from.
        folder: A new or empty folder.
        rank: Rank of the adapters.

    Raises:
        FoundryError: The models are built differently or do not differ, the change is of a higher rank, or what was
            written gives other vectors; nothing is left behind then.
    """
    check_precision(embedder)
    start, tokenizer, settings, _ = load_model(ModelFolder.open(locate(base)), inputs="gme")
    pairs, others = _changes(embedder, start, rank)
    if not pairs:
        raise FoundryError(f"The language part of the model is that of its base {base}: there is nothing to adapt.")
    base_name = os.path.relpath(base, folder) if Path(base).is_dir() else str(base)
    with staged(folder) as staging:
        if others:
            save_model(staging / _BASE, start, tokenizer, settings)
        _write_adapter(staging, pairs, rank, _BASE if others else base_name)
        (staging / SETTINGS).write_text(embedder.settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        items = probes()
        compare("Embedder", staging, [embedder.encode(items)], [Embedder.load(staging).encode(items)])


def _changes(embedder: Embedder, start: Backbone, rank: int) -> tuple[dict[str, _LowRank], list[str]]:
    """Returns the adapters by layer, and the names of other weights that differ, which are copied into `start`."""
    tuned = {name: weight.detach().cpu() for name, weight in embedder.model.qwen.named_parameters()}
    weights = dict(start.named_parameters())
    if {name: weight.shape for name, weight in weights.items()} != {name: w.shape for name, w in tuned.items()}:
        raise FoundryError("The model and its base are built differently.")
    linear = {f"{name}.weight" for name, module in start.named_modules() if isinstance(module, nn.Linear)}
    changed = [name for name, weight in weights.items() if not torch.equal(weight, tuned[name])]
    adapted = [name for name in changed if name in linear and name.startswith("language_model.")]
    others = [name for name in changed if name not in adapted]
    for name in others:
        weights[name].data.copy_(tuned[name])
    pairs = {
        name.removesuffix(".weight"): _factors(name, tuned[name] - weights[name].detach(), rank) for name in adapted
    }
    return pairs, others


def _factors(name: str, update: Tensor, rank: int) -> _LowRank:
    """Returns A [rank, in] and B [out, rank] with B A = `update`."""
    width = min(rank + _OVERSAMPLING, *update.shape)
    # With a seed, so that one model gives the same adapters each time; the random state of the caller stays.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left_vectors, sizes, right_vectors = torch.svd_lowrank(update.double(), q=width, niter=_ITERATIONS)
    # The root of each singular value goes to both factors, so that they have the same scale.
    root = sizes[:rank].sqrt()
    down, up = root[:, None] * right_vectors[:, :rank].T, left_vectors[:, :rank] * root
    residual = float((update - up @ down).norm() / update.norm())
    if residual > _MAX_RESIDUAL:
        raise FoundryError(
            f"{name} was changed by more than adapters of rank {rank} can: a share of {residual:.2g} is left.",
            hint="Give the rank it was trained with, and the model it was trained from.",
        )
    return down.float().contiguous(), up.float().contiguous()


def _write_adapter(folder: Path, pairs: dict[str, _LowRank], rank: int, base: str) -> None:
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
        "lora_alpha": rank,  # the scale alpha / r is 1: B A is the update itself
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": rf"language_model\..*\.({'|'.join(kinds)})",
        "inference_mode": True,
    }
    write_json(folder / ADAPTER_CONFIG, config)
