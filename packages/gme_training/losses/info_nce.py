"""InfoNCE over unique candidates, with false negatives masked, in memory linear in the number of candidates.

Goes over the candidates in tiles twice: forwards for the logarithm of the sum, backwards for the gradient, so that
the matrix of logits never exists (as Inf-CL, arXiv:2410.17243). Every function works on any part of the rows, so that
ranks can share the rows of one global batch and add up to exactly its loss. Knows vectors and pairings; not where they
come from.
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
"""Pairs of an anchor and a candidate that are looked at together."""


@dataclass(frozen=True, slots=True)
class LossParts:
    """Sums over the rows that were computed; divide by the number of rows of the whole batch.

    Attributes:
        loss: Scalar, with gradient.
        correct: Rows whose positive beats every negative.
        positive: Sum of the cosines of query and positive.
        negative: Sum over the rows of the mean cosine of query and negatives.
    """

    loss: Tensor
    correct: Tensor
    positive: Tensor
    negative: Tensor


def contrast(
    queries: Tensor, candidates: Tensor, pairing: Pairing, config: LossConfig, scale: Tensor, rows: Tensor
) -> LossParts:
    """The loss of some rows of a global batch.

    Args:
        queries: [Q, d] of the whole batch, L2-normalised.
        candidates: [C, d], L2-normalised, each item once; several queries may share a positive.
        pairing: Positives and false negatives.
        config: Which negatives count, and how much.
        scale: One divided by the temperature, a scalar; gets a gradient if it asks for one.
        rows: int64 [r], the queries to compute here.
    """
    whole = _contrast(queries, candidates, pairing, config, scale, rows)
    if not config.dimensions:
        return whole
    # Kusupati et al. 2022 (Matryoshka): the first k dimensions alone have to do as well; the mean over all k.
    losses = [whole.loss]
    for size in config.dimensions:
        short, others = (torch.nn.functional.normalize(part[:, :size], dim=1) for part in (queries, candidates))
        losses.append(_contrast(short, others, pairing, config, scale, rows).loss)
    return LossParts(torch.stack(losses).mean(), whole.correct, whole.positive, whole.negative)


def _contrast(
    queries: Tensor, candidates: Tensor, pairing: Pairing, config: LossConfig, scale: Tensor, rows: Tensor
) -> LossParts:
    targets = pairing.targets[rows]
    excluded = pairing.against_candidates(rows, config.negatives)
    losses, seen = info_nce(queries[rows], candidates, targets, excluded, config, scale)
    if config.symmetric:
        excluded = pairing.against_queries(rows, config.negatives)
        back, _ = info_nce(candidates[targets], queries, rows, excluded, config, scale)
        losses = (losses + back) / 2
    correct = (seen.positive > seen.nearest).to(losses.dtype).sum()
    return LossParts(losses.sum(), correct, seen.positive.sum(), seen.mean.sum())


@dataclass(frozen=True, slots=True)
class Seen:
    """What the anchors saw, without gradient: cosine of the positive, of the nearest negative, mean of the negatives.

    Each is [a]; without a negative the last two are -2 and 0.
    """

    positive: Tensor
    nearest: Tensor
    mean: Tensor


def info_nce(
    anchors: Tensor, pool: Tensor, targets: Tensor, excluded: Exclusions, config: LossConfig, scale: Tensor
) -> tuple[Tensor, Seen]:
    """InfoNCE of each anchor: ``-log softmax(scale * a . p)[target]`` over the pool without what is excluded.

    Oord et al. 2018, equation 4, with cosines and a temperature (GME, section 3.2). With `config.hardness` b, the term
    of a negative of cosine s counts exp(b * s) times (LLaVE, arXiv:2503.04812, equation 4); with `config.margin` m, a
    negative more similar than the positive by m is taken for an unmarked positive and left out (Qwen3-VL-Embedding).

    Args:
        anchors: [a, d].
        pool: [p, d].
        targets: int64 [a], the column of each anchor's positive.
        excluded: Never holds a target.
        config: Hardness and margin.
        scale: One divided by the temperature.

    Returns:
        [a] losses, and what was seen.
    """
    losses, positive, nearest, mean = _InfoNCE.apply(  # type: ignore[no-untyped-call]
        anchors, pool, scale, targets, excluded, config
    )
    return losses, Seen(positive, nearest, mean)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Columns `start` to `stop` of the pool: cosines, logits (-inf where excluded), and where the targets lie."""

    start: int
    stop: int
    cosines: Tensor
    logits: Tensor
    is_target: Tensor


class _InfoNCE(torch.autograd.Function):
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
        total = torch.full_like(positive, float("-inf"))  # logarithm of the sum so far
        nearest, summed, count = torch.full_like(positive, -2.0), torch.zeros_like(positive), torch.zeros_like(positive)
        for tile in _tiles(anchors, pool, positive, scale, targets, excluded, config):
            total = torch.logaddexp(total, tile.logits.logsumexp(1))
            negative = tile.logits.isfinite() & ~tile.is_target
            nearest = torch.maximum(nearest, tile.cosines.masked_fill(~negative, -2.0).max(1).values)
            summed, count = summed + (tile.cosines * negative).sum(1), count + negative.sum(1)
        ctx.save_for_backward(anchors, pool, scale, targets, positive, total)
        ctx.excluded, ctx.config = excluded, config
        mean = summed / count.clamp(min=1)
        ctx.mark_non_differentiable(positive, nearest, mean)
        return total - positive * scale, positive, nearest, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        anchors, pool, scale, targets, positive, total = ctx.saved_tensors
        d_anchors, d_pool = torch.zeros_like(anchors), torch.zeros_like(pool)
        d_scale = torch.zeros_like(scale)
        for tile in _tiles(anchors, pool, positive, scale, targets, ctx.excluded, ctx.config):
            weights = (tile.logits - total[:, None]).exp() * grad[:, None]  # [a, t]
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
        out = excluded.tile(len(anchors), start, stop)
        if config.margin is not None:
            out = out | (cosines > positive[:, None] + config.margin)
        logits = cosines * scale
        if config.hardness:
            logits = torch.where(is_target, logits, logits + config.hardness * cosines)
        yield _Tile(start, stop, cosines, logits.masked_fill(out & ~is_target, float("-inf")), is_target)
