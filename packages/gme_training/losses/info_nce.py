"""InfoNCE over unique candidates, with false negatives masked, in memory linear in the number of candidates.

Goes over the candidates in tiles twice, in the forward for the logarithm of the sum and in the backward for the
gradient, so that the matrix of logits never exists (as Inf-CL, arXiv:2410.17243). Every function works on any subset of
the rows, so that ranks can split the rows of a global batch and the sum of their losses is exactly its loss. Knows
vectors and pairings; not where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gme_training.config import LossConfig
from gme_training.losses.pairing import Exclusions, Pairing

TILE = 2**18
"""A tile holds at most so many pairs of an anchor and a candidate."""


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums over the rows that were computed; divide by the number of rows of the global batch for its means.

    Attributes:
        loss: The sum of the losses, a scalar with gradient.
        correct: The number of rows whose positive is more similar than every negative.
        positive: The sum of the cosines of query and positive.
        negative: The sum over the rows of the mean cosine of query and negatives.
    """

    loss: Tensor
    correct: Tensor
    positive: Tensor
    negative: Tensor


def contrastive_loss(
    queries: Tensor, candidates: Tensor, pairing: Pairing, config: LossConfig, scale: Tensor, rows: Tensor
) -> LossSums:
    """Computes the loss of some rows of a global batch.

    Args:
        queries: The queries of the global batch, [Q, d], L2-normalised.
        candidates: The candidates, [C, d], L2-normalised, each item once; several queries may share a positive.
        pairing: Positives and false negatives.
        config: Which negatives count, and how much.
        scale: One divided by the temperature, a scalar; gets a gradient if it requires one.
        rows: The queries whose loss is computed, int64 [r].
    """
    full = _loss_of_rows(queries, candidates, pairing, config, scale, rows)
    if not config.matryoshka_dims:
        return full
    # Kusupati et al. 2022 (Matryoshka): the first k dimensions alone have to do as well; the mean over all k.
    losses = [full.loss]
    for size in config.matryoshka_dims:
        short_queries, short_candidates = (
            torch.nn.functional.normalize(vectors[:, :size], dim=1) for vectors in (queries, candidates)
        )
        losses.append(_loss_of_rows(short_queries, short_candidates, pairing, config, scale, rows).loss)
    return LossSums(torch.stack(losses).mean(), full.correct, full.positive, full.negative)


def _loss_of_rows(
    queries: Tensor, candidates: Tensor, pairing: Pairing, config: LossConfig, scale: Tensor, rows: Tensor
) -> LossSums:
    targets = pairing.targets[rows]
    excluded = pairing.against_candidates(rows, config.negatives)
    losses, cosines = info_nce(queries[rows], candidates, targets, excluded, config, scale)
    if config.symmetric:
        excluded = pairing.against_queries(rows, config.negatives)
        reverse, _ = info_nce(candidates[targets], queries, rows, excluded, config, scale)
        losses = (losses + reverse) / 2
    correct = (cosines.positive > cosines.hardest_negative).to(losses.dtype).sum()
    return LossSums(losses.sum(), correct, cosines.positive.sum(), cosines.mean_negative.sum())


@dataclass(frozen=True, slots=True)
class AnchorCosines:
    """Cosines of each anchor, without gradient, for the metrics of a step.

    Attributes:
        positive: With its positive, [a].
        hardest_negative: With the most similar negative, [a]; -2 without a negative.
        mean_negative: The mean over its negatives, [a]; 0 without a negative.
    """

    positive: Tensor
    hardest_negative: Tensor
    mean_negative: Tensor


def info_nce(
    anchors: Tensor, pool: Tensor, targets: Tensor, excluded: Exclusions, config: LossConfig, scale: Tensor
) -> tuple[Tensor, AnchorCosines]:
    """Computes InfoNCE of each anchor: ``-log softmax(scale * a . p)[target]`` over the pool without the excluded.

    Oord et al. 2018, equation 4, with cosines and a temperature (GME, section 3.2). With `hardness_strength` b, the
    term of a negative of cosine s counts exp(b * s) times, and b * s gets no gradient (LLaVE, arXiv:2503.04812,
    equation 4); with `false_negative_margin` m, a negative more similar than the positive by m is taken for an unmarked
    positive and left out (Qwen3-VL-Embedding).

    Args:
        anchors: [a, d].
        pool: [p, d].
        targets: The column of each anchor's positive, int64 [a].
        excluded: Columns that are no negatives; must not hold a target.
        config: Hardness and margin.
        scale: One divided by the temperature, a scalar.

    Returns:
        The losses, [a], and the cosines for the metrics.
    """
    losses, positive, hardest, mean = _InfoNCE.apply(  # type: ignore[no-untyped-call]
        anchors, pool, scale, targets, excluded, config
    )
    return losses, AnchorCosines(positive, hardest, mean)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The columns `start` to `stop` of the pool.

    Attributes:
        start: The first column.
        stop: One after the last column.
        cosines: [a, t].
        logits: [a, t], -inf where excluded.
        is_target: Whether a column is the target of an anchor, bool [a, t].
    """

    start: int
    stop: int
    cosines: Tensor
    logits: Tensor
    is_target: Tensor


class _InfoNCE(torch.autograd.Function):
    # An autograd function and not plain operations, since autograd would keep the logits of every tile.

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        anchors: Tensor,
        pool: Tensor,
        scale: Tensor,
        targets: Tensor,
        excluded: Exclusions,
        config: LossConfig,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        positive = (anchors * pool[targets]).sum(1)
        log_sum = torch.full_like(positive, float("-inf"))
        hardest, summed, count = torch.full_like(positive, -2.0), torch.zeros_like(positive), torch.zeros_like(positive)
        for tile in _tiles(anchors, pool, positive, scale, targets, excluded, config):
            log_sum = torch.logaddexp(log_sum, tile.logits.logsumexp(1))
            negative = tile.logits.isfinite() & ~tile.is_target
            hardest = torch.maximum(hardest, tile.cosines.masked_fill(~negative, -2.0).max(1).values)
            summed, count = summed + (tile.cosines * negative).sum(1), count + negative.sum(1)
        ctx.save_for_backward(anchors, pool, scale, targets, positive, log_sum)
        ctx.excluded, ctx.config = excluded, config
        mean = summed / count.clamp(min=1)
        ctx.mark_non_differentiable(positive, hardest, mean)
        return log_sum - positive * scale, positive, hardest, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        anchors, pool, scale, targets, positive, log_sum = ctx.saved_tensors
        d_anchors, d_pool = torch.zeros_like(anchors), torch.zeros_like(pool)
        d_scale = torch.zeros_like(scale)
        for tile in _tiles(anchors, pool, positive, scale, targets, ctx.excluded, ctx.config):
            weights = (tile.logits - log_sum[:, None]).exp() * grad[:, None]  # [a, t]
            # The weights of a row add up to its gradient: the difference is taken here, not between two large sums.
            d_scale = d_scale + (weights * (tile.cosines - positive[:, None])).sum()
            d_anchors += weights @ pool[tile.start : tile.stop]
            d_pool[tile.start : tile.stop] += weights.T @ anchors
        d_anchors -= grad[:, None] * pool[targets]
        d_pool.index_add_(0, targets, grad[:, None] * anchors, alpha=-1)
        return d_anchors * scale, d_pool * scale, d_scale, None, None, None


def _tiles(
    anchors: Tensor,
    pool: Tensor,
    positive: Tensor,
    scale: Tensor,
    targets: Tensor,
    excluded: Exclusions,
    config: LossConfig,
) -> Iterator[_Tile]:
    width = max(1, TILE // max(1, len(anchors)))
    for start in range(0, len(pool), width):
        stop = min(start + width, len(pool))
        cosines = anchors @ pool[start:stop].T  # [a, t]
        is_target = targets[:, None] == torch.arange(start, stop, device=targets.device)
        masked = excluded.tile(len(anchors), start, stop)
        if config.false_negative_margin is not None:
            masked = masked | (cosines > positive[:, None] + config.false_negative_margin)
        logits = cosines * scale
        if config.hardness_strength:
            logits = torch.where(is_target, logits, logits + config.hardness_strength * cosines)
        yield _Tile(start, stop, cosines, logits.masked_fill(masked & ~is_target, float("-inf")), is_target)
