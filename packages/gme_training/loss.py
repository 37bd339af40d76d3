"""InfoNCE over unique candidates, with false negatives masked.

Knows vectors, targets and masks; not where they come from. Every function is pure and works on any part of the rows,
so that ranks can share the rows of one global batch and add up to exactly its loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossParts:
    """Sums over the rows that were computed; divide by the number of rows of the whole batch.

    Attributes:
        loss: Scalar, with gradient.
        correct: Rows whose positive beats every unmasked candidate.
        similarity: Sum of the cosines of query and positive.
    """

    loss: Tensor
    correct: Tensor
    similarity: Tensor


def info_nce(queries: Tensor, candidates: Tensor, targets: Tensor, masked: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query: ``-log softmax(q . c / temperature)[target]`` over the candidates that are not masked.

    Oord et al. 2018, equation 4, with cosines and a temperature (GME, section 3.2).

    Args:
        queries: [q, d], L2-normalised.
        candidates: [c, d], L2-normalised.
        targets: int64 [q], the column of each query's positive; never masked.
        masked: bool [q, c], true where a candidate is not to be a negative of a query.
        temperature: Divides the cosines.

    Returns:
        [q] losses.
    """
    logits = (queries @ candidates.T / temperature).masked_fill(masked, float("-inf"))
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def contrast(
    queries: Tensor,
    candidates: Tensor,
    targets: Tensor,
    masked: Tensor,
    *,
    rows: Tensor,
    temperature: float,
    symmetric: bool,
) -> LossParts:
    """The loss of some rows of a global batch.

    Args:
        queries: [Q, d] of the whole batch.
        candidates: [C, d], each item once; several queries may share a positive.
        targets: int64 [Q].
        masked: bool [Q, C].
        rows: int64 [r], the queries to compute here.
        temperature: Divides the cosines.
        symmetric: Average with the other direction: the positive of each row against all queries.
    """
    mine, positives = queries[rows], candidates[targets[rows]]
    losses = info_nce(mine, candidates, targets[rows], masked[rows], temperature)
    if symmetric:
        losses = (losses + info_nce(positives, queries, rows, _masked_back(targets, masked, rows), temperature)) / 2
    with torch.no_grad():
        similarity = (mine * positives).sum(1)
        rivals = (mine @ candidates.T).masked_fill(masked[rows], -2.0)
        rivals.scatter_(1, targets[rows, None], -2.0)
        correct = (similarity > rivals.max(1).values).sum()
    return LossParts(losses.sum(), correct, similarity.sum())


def _masked_back(targets: Tensor, masked: Tensor, rows: Tensor) -> Tensor:
    """[r, Q]: which queries are no negatives of the positive of each row. Other queries of that positive are not."""
    columns = targets[rows]
    hidden = masked.T[columns] | (targets[None, :] == columns[:, None])
    return hidden.scatter(1, rows[:, None], False)
