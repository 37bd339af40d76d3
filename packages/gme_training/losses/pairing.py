"""The positives and the false negatives of a global batch, without a matrix of queries by candidates.

Knows numbers of rows and columns; neither items nor vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from gme_training.config import Scope


@dataclass(frozen=True, slots=True)
class Pairing:
    """The queries and candidates of a global batch.

    Attributes:
        targets: The column of each query's positive, int64 [Q].
        false_negatives: Pairs (query, column) of false negatives, int64 [h, 2]; targets are never among them.
        own_candidates: Pairs (query, column) of each query's positive and its own hard negatives, int64 [b, 2].
        candidates: The number of columns, C.
        ranks: The number of ranks; query i belongs to rank i modulo `ranks`.
    """

    targets: Tensor
    false_negatives: Tensor
    own_candidates: Tensor
    candidates: int
    ranks: int = 1

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """Returns the pairing with its tensors on another device."""
        tensors = (self.targets.to(device), self.false_negatives.to(device), self.own_candidates.to(device))
        return type(self)(*tensors, self.candidates, self.ranks)

    def rows_of(self, rank: int) -> Tensor:
        """Returns the queries whose loss `rank` computes, int64 [r]."""
        return torch.arange(len(self), device=self.targets.device)[rank :: self.ranks]

    def against_candidates(self, rows: Tensor, scope: Scope) -> Exclusions:
        """Returns which candidates are no negatives of the queries `rows`, int64 [r]."""
        false_negatives = _of_rows(self.false_negatives, rows, len(self))
        if scope == "own":
            return Exclusions(false_negatives, only=_of_rows(self.own_candidates, rows, len(self)))
        if scope == "cross_rank" or self.ranks == 1:
            return Exclusions(false_negatives)
        # A candidate that queries of two ranks share is a negative on both.
        within = torch.zeros(self.ranks, self.candidates, dtype=torch.bool, device=rows.device)
        within[self.own_candidates[:, 0] % self.ranks, self.own_candidates[:, 1]] = True
        return Exclusions(false_negatives, groups=rows % self.ranks, within=within)

    def against_queries(self, rows: Tensor, scope: Scope) -> Exclusions:
        """Returns which queries are no negatives of the positives of `rows`, int64 [r].

        They are the queries of which the positive is a false negative, and other queries with the same positive.
        """
        columns = self.targets[rows]
        shared = torch.stack([torch.arange(len(self), device=rows.device), self.targets], dim=1)
        excluded = torch.cat([self.false_negatives, shared])  # (query, column)
        excluded = excluded[excluded[:, 1].argsort(stable=True)]
        # A join by column without a matrix: the pairs of each anchor's column lie between first and last.
        first, last = (torch.searchsorted(excluded[:, 1].contiguous(), columns, right=side) for side in (False, True))
        counts = last - first
        anchors = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
        offsets = torch.arange(len(anchors), device=rows.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        queries = excluded[torch.repeat_interleave(first, counts) + offsets, 0]
        other = queries != rows[anchors]
        pairs = torch.stack([anchors[other], queries[other]], dim=1)
        if scope == "cross_rank" or self.ranks == 1:
            return Exclusions(pairs)
        of_rank = torch.arange(len(self), device=rows.device) % self.ranks
        within = of_rank[None] == torch.arange(self.ranks, device=rows.device)[:, None]
        return Exclusions(pairs, groups=rows % self.ranks, within=within)


class Exclusions:
    """Which columns of a pool are no negatives of which anchors, tile by tile.

    Args:
        excluded: Pairs (anchor, column), int64 [h, 2].
        only: Pairs (anchor, column); if given, all pairs but these are excluded too.
        groups: The group of each anchor, int64 [a]; if given, columns outside of it are excluded too.
        within: Which columns belong to which group, bool [groups, columns].
    """

    def __init__(
        self, excluded: Tensor, only: Tensor | None = None, groups: Tensor | None = None, within: Tensor | None = None
    ) -> None:
        self._excluded = _by_column(excluded)
        self._only = None if only is None else _by_column(only)
        self._groups, self._within = groups, within

    def tile(self, anchors: int, start: int, stop: int) -> Tensor:
        """Returns a mask of the columns `start` to `stop`, true where excluded, bool [anchors, stop - start]."""
        device = self._excluded.device
        if self._within is not None and self._groups is not None:
            mask = ~self._within[:, start:stop][self._groups]
        else:
            mask = torch.full((anchors, stop - start), self._only is not None, dtype=torch.bool, device=device)
        # False negatives come last: one that is also among an anchor's own candidates stays excluded.
        for pairs, value in ((self._only, False), (self._excluded, True)):
            if pairs is not None:
                columns = pairs[:, 1].contiguous()
                first, last = torch.searchsorted(columns, torch.tensor([start, stop], device=device)).tolist()
                mask[pairs[first:last, 0], pairs[first:last, 1] - start] = value
        return mask


def _of_rows(pairs: Tensor, rows: Tensor, queries: int) -> Tensor:
    """Returns the pairs of the queries `rows`, with each query renumbered by its position in `rows`."""
    position = torch.full((queries,), -1, dtype=torch.long, device=rows.device)
    position[rows] = torch.arange(len(rows), device=rows.device)
    anchors = position[pairs[:, 0]]
    selected = anchors >= 0
    return torch.stack([anchors[selected], pairs[selected, 1]], dim=1)


def _by_column(pairs: Tensor) -> Tensor:
    return pairs[pairs[:, 1].argsort(stable=True)]
