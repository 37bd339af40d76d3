"""Embeddings of all ranks on every rank, with gradients that find their way home.

Knows tensors and the process group; not what the rows mean.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Forward: all_gather of equally shaped blocks. Backward: sum of every rank's gradient, own block of it."""

    @staticmethod
    def forward(ctx: Any, block: Tensor) -> Tensor:  # noqa: ANN401 - torch gives the context no type
        blocks = [torch.empty_like(block) for _ in range(dist.get_world_size())]
        dist.all_gather(blocks, block.contiguous())
        return torch.stack(blocks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        total = grad.contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def gather_rows(rows: Tensor, counts: list[int]) -> Tensor:
    """Rows of all ranks, rank 0's first.

    Args:
        rows: [counts[rank], d] of this rank.
        counts: Rows of each rank; all ranks know all of them.

    Returns:
        [sum(counts), d]. Its gradient is summed over the ranks: each rank may compute a part of the loss.
    """
    if len(counts) == 1:
        return rows
    padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - rows.shape[0]))
    blocks: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call] # torch
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])
