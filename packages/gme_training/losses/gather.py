"""Gathers the embeddings of all ranks on every rank, with gradients that flow back to the rank that encoded them.

Knows tensors and the process group; not what the rows mean.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    # dist.all_gather does not propagate gradients.

    @staticmethod
    def forward(ctx: Any, block: Tensor) -> Tensor:  # noqa: ANN401 - torch gives the context no type
        blocks = [torch.empty_like(block) for _ in range(dist.get_world_size())]
        dist.all_gather(blocks, block.contiguous())
        return torch.stack(blocks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        # Every rank's part of the loss depends on this rank's block: their gradients of it are summed.
        total = grad.contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def gather_rows(rows: Tensor, counts: list[int]) -> Tensor:
    """Gathers the rows of all ranks, rank 0's first.

    Args:
        rows: The rows of this rank, [counts[rank], d].
        counts: The number of rows of each rank; all ranks know all of them.

    Returns:
        [sum(counts), d]. Its gradient is summed over the ranks, so that each rank may compute a part of the loss.
    """
    if len(counts) == 1:
        return rows
    # all_gather takes blocks of one shape.
    padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - rows.shape[0]))
    blocks: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call] # torch
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])
