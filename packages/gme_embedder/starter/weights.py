"""A small file of what training changed, written from a trained model and applied to a fresh one.

It holds the vision tower in half precision and, of the language part, only the changes: vectors in full, matrices as a
product of two low-rank factors. SmolLM2's layers come from their own package. Knows weights; not how they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_embedder.modeling.backbone import Backbone
from gme_embedder.processing.prompt import VISION_TOKENS
from gme_embedder.starter import WEIGHTS

_UP, _DOWN = ".up", ".down"
_TABLE = "language_model.embed_tokens.weight"
_VISION_ROWS = "vision_rows"
"""The last rows of the token table: they are no tokens of SmolLM2, and are randomly initialised in a fresh model."""


@torch.no_grad()
def apply_starter(model: Backbone, digest: str, path: Path = WEIGHTS) -> None:
    """Turns a fresh tiny model into the starter, in place.

    Args:
        model: A model with SmolLM2's layers and a tower of the starter's shape.
        digest: The sha256 of the configured starter.
        path: The file; the shipped one by default.

    Raises:
        FoundryError: The file is missing or another one, or belongs to a model of another shape.
    """
    if not path.is_file() or sha256_file(path) != digest:
        raise FoundryError(
            f"{path} is not the starter {digest[:12]} that the configuration asks for.",
            hint="Ask for starter: shipped, check out the file again, or make a starter of your own: `make starter`.",
        )
    shipped = load_file(path)
    weights: dict[str, Tensor] = dict(model.named_parameters())
    weights[_VISION_ROWS] = weights[_TABLE][-len(VISION_TOKENS) :]
    for name, value in _expanded(shipped):
        if name not in weights or (value.shape != weights[name].shape):
            raise FoundryError(
                f"The starter does not fit the configured model: {name} has the shape {list(value.shape)} there, "
                f"{list(weights[name].shape) if name in weights else 'no place'} here.",
                hint="Leave text_layers and the tower as they are by default, or leave model.starter out.",
            )
    for name, value in _expanded(shipped):
        if name + _UP in shipped:  # a change of a matrix; other weights are stored in full
            weights[name].add_(value)
        else:
            weights[name].copy_(value)


def write_starter(trained: Backbone, fresh: Backbone, path: Path, rank: int) -> float:
    """Writes what training changed.

    Args:
        trained: The model after stage 0.
        fresh: The model that it started from; its tower may be any of the same shape.
        path: The file to write.
        rank: Rank of the matrices' changes; exact if they were trained by adapters of at most this rank.

    Returns:
        The largest share of a matrix's change that the low-rank factors miss (Frobenius norm).
    """
    before = dict(fresh.named_parameters())
    shipped = {_VISION_ROWS: trained.language_model.embed_tokens.weight[-len(VISION_TOKENS) :].detach().clone()}
    max_missed = 0.0
    for name, after in trained.named_parameters():
        # The tower of a fresh model is random, so it is stored in full and not as a change.
        if name.startswith("visual."):
            shipped[name] = after.detach().half().contiguous()
            continue
        change = (after - before[name]).detach()
        if name == _TABLE or not change.any():
            continue
        if change.ndim == 1:
            shipped[name] = after.detach().float().contiguous()
            continue
        up, down = _low_rank(change, rank)
        missed = torch.linalg.norm(change - up.float() @ down.float()) / torch.linalg.norm(change)
        max_missed = max(max_missed, float(missed))
        shipped[name + _UP], shipped[name + _DOWN] = up, down
    save_file(shipped, path, metadata={"format": "pt"})
    return max_missed


def _low_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns [out, rank] and [rank, in] in fp16 whose product is nearest to `change` (Eckart and Young 1936)."""
    u, values, v = torch.linalg.svd(change.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    return (u[:, :rank] * roots).half().contiguous(), (roots[:, None] * v[:rank]).half().contiguous()


def _expanded(shipped: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields weights, and changes of matrices in full, by their names in the model."""
    for name, value in shipped.items():
        if name.endswith(_UP):
            layer = name.removesuffix(_UP)
            yield layer, value.float() @ shipped[layer + _DOWN].float()
        elif not name.endswith(_DOWN):
            yield name, value.float()
