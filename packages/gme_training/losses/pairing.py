"""Who is whose positive, and who is no negative of whom, without ever holding a matrix of queries by candidates.

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
        targets: Column of each query's positive, int64 [Q].
        hidden: Pairs (query, column) of false negatives, int64 [h, 2]; targets are never among them.
        brought: Pairs (query, column) of each query's positive and its own hard negatives, int64 [b, 2].
        candidates: Number of columns, C.
        ranks: Query i belongs to rank i modulo `ranks`.
    """

    targets: Tensor
    hidden: Tensor
    brought: Tensor
    candidates: int
    ranks: int = 1

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        parts = (self.targets.to(device), self.hidden.to(device), self.brought.to(device))
        return type(self)(*parts, self.candidates, self.ranks)

    def rows_of(self, rank: int) -> Tensor:
        """The queries whose loss `rank` computes, int64 [r]."""
        return torch.arange(len(self), device=self.targets.device)[rank :: self.ranks]

    def against_candidates(self, rows: Tensor, scope: Scope) -> Exclusions:
        """What is no negative of the queries `rows` among the candidates."""
        hidden = _of_rows(self.hidden, rows, len(self))
        if scope == "own":
            return Exclusions(hidden, only=_of_rows(self.brought, rows, len(self)))
        if scope == "cross_rank" or self.ranks == 1:
            return Exclusions(hidden)
        within = torch.zeros(self.ranks, self.candidates, dtype=torch.bool, device=rows.device)
        within[self.brought[:, 0] % self.ranks, self.brought[:, 1]] = True
        return Exclusions(hidden, groups=rows % self.ranks, within=within)

    def against_queries(self, rows: Tensor, scope: Scope) -> Exclusions:
        """What is no negative of the positives of `rows` among the queries.

        Those from which the positive is hidden, and other queries of the same positive.
        """
        columns = self.targets[rows]
        shared = torch.stack([torch.arange(len(self), device=rows.device), self.targets], dim=1)
        reached = torch.cat([self.hidden, shared])  # (query, column) that don't contrast
        reached = reached[reached[:, 1].argsort(stable=True)]
        first, last = (torch.searchsorted(reached[:, 1].contiguous(), columns, right=side) for side in (False, True))
        counts = last - first
        anchors = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
        offsets = torch.arange(len(anchors), device=rows.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        queries = reached[torch.repeat_interleave(first, counts) + offsets, 0]
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
        hidden: Pairs (anchor, column), int64 [h, 2].
        only: If given, all other pairs than these are excluded too.
        groups: If given, the group of each anchor, int64 [a]; it has only the columns of its group.
        within: bool [groups, columns].
    """

    def __init__(
        self, hidden: Tensor, only: Tensor | None = None, groups: Tensor | None = None, within: Tensor | None = None
    ) -> None:
        self._hidden = _by_column(hidden)
        self._only = None if only is None else _by_column(only)
        self._groups, self._within = groups, within

    def tile(self, anchors: int, start: int, stop: int) -> Tensor:
        """Columns `start` to `stop`: true where excluded, bool [anchors, stop - start]."""
        device = self._hidden.device
        if self._within is not None and self._groups is not None:
            excluded = ~self._within[:, start:stop][self._groups]
        else:
            excluded = torch.full((anchors, stop - start), self._only is not None, dtype=torch.bool, device=device)
        for pairs, value in ((self._only, False), (self._hidden, True)):
            if pairs is not None:
                columns = pairs[:, 1].contiguous()
                first, last = torch.searchsorted(columns, torch.tensor([start, stop], device=device)).tolist()
                excluded[pairs[first:last, 0], pairs[first:last, 1] - start] = value
        return excluded


def _of_rows(pairs: Tensor, rows: Tensor, queries: int) -> Tensor:
    """The pairs of some queries, which are numbered by their place in `rows`."""
    place = torch.full((queries,), -1, dtype=torch.long, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    anchors = place[pairs[:, 0]]
    mine = anchors >= 0
    return torch.stack([anchors[mine], pairs[mine, 1]], dim=1)


def _by_column(pairs: Tensor) -> Tensor:
    return pairs[pairs[:, 1].argsort(stable=True)]
