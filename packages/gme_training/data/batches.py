"""Which examples make the batch of a step: a pure function of (config, data, phase, step).

Nothing is kept between steps, so a run that is resumed at step k sees the batches that it would have seen, and nothing
is as long as the data: orders are worked out place by place. Knows numbers of examples and items; not texts, pictures
or vectors.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_training.data.catalog import Catalog, Ints, Rows
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.data.shuffle import shuffled, shuffled_all

_COMPANIONS_TRIED = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """One global batch; the ranks share it out among themselves.

    Attributes:
        share: The source and its settings.
        rows: [Q] examples, each the query of one row of the loss.
        candidates: [C] distinct items: the positives, then the hard negatives.
        targets: [Q] column of each query's positive.
        hidden: [h, 2] pairs (place of a query, column) of false negatives.
        brought: [b, 2] pairs (place of a query, column) of its positive and its own hard negatives.
        seed: Of the augmentation of this batch.
    """

    share: SourceShare
    rows: Ints
    candidates: Ints
    targets: Ints
    hidden: Ints
    brought: Ints
    seed: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Names the examples and candidates in their order; equal digests, equal data."""
        return sha256_bytes(self.rows.tobytes() + self.candidates.tobytes())[:12]


class BatchPlan:
    """The batches of one phase.

    Args:
        catalog: The training set.
        phase: Its mixture and number of steps.
        seed: Seed of the stage; `number` is the phase's place in it.
        mask_same_group: Sources in which the same fact of a look-alike is no negative.
    """

    def __init__(
        self, catalog: Catalog, phase: PhaseConfig, *, number: int, seed: int, mask_same_group: Sequence[str] = ()
    ) -> None:
        self._catalog, self.phase = catalog, phase
        self._seed = (seed, number)
        self._mask_same_group = frozenset(mask_same_group)
        self._turns = _turns(phase)
        self._pools = [_pool(catalog, share) for share in phase.mixture]

    def batch(self, step: int) -> Batch:
        """The batch of a step of the phase, counted from 0."""
        which, turn = self._turns[step]
        share = self.phase.mixture[which]
        rng = np.random.default_rng([*self._seed, which, turn])
        rows = self._draw_rows(share, which, turn, rng)
        candidates, targets, brought = self._candidates(share, rows, rng)
        return Batch(
            share=share,
            rows=rows,
            candidates=candidates,
            targets=targets,
            hidden=self._hidden(share, rows, candidates, targets),
            brought=brought,
            seed=(*self._seed, which, turn),
        )

    def drawn(self) -> Ints:
        """The examples that the phase draws, ascending."""
        rows = []
        for which, turn in self._turns:
            rng = np.random.default_rng([*self._seed, which, turn])
            rows.append(self._draw_rows(self.phase.mixture[which], which, turn, rng))
        return np.unique(np.concatenate(rows))

    def _draw_rows(self, share: SourceShare, which: int, turn: int, rng: np.random.Generator) -> Ints:
        """Anchors in the order of an epoch; the first of them bring others of their batch key along."""
        pool = self._pools[which]
        size = min(share.batch_size, len(pool))
        groups = int(size * share.grouped) // share.group_size
        anchors = size - groups * (share.group_size - 1)
        order = self._epochs(pool, which, np.arange(turn * anchors, (turn + 1) * anchors)).tolist()
        chosen: dict[int, None] = {}
        for anchor in order[:groups]:
            chosen.setdefault(anchor)
            chosen.update(dict.fromkeys(self._companions(share, pool, anchor, rng)))
        chosen.update(dict.fromkeys(order[groups:]))
        # Groups may be smaller than asked for, or overlap with single anchors: fill up at random.
        fill = shuffled_all(len(pool), [*self._seed, which, turn, len(pool)])
        while len(chosen) < size:
            chosen.setdefault(int(pool.at(np.array([next(fill)]))[0]))
        return np.array(list(chosen)[:size], dtype=np.int64)

    def _epochs(self, pool: Rows, which: int, places: Ints) -> Ints:
        """What stands at some places of the endless sequence of shuffled copies of `pool`."""
        epochs, within = np.divmod(places, len(pool))
        drawn = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            drawn[here] = shuffled(within[here], len(pool), [*self._seed, which, epoch, len(pool)])
        return pool.at(drawn)

    def _companions(self, share: SourceShare, pool: Rows, anchor: int, rng: np.random.Generator) -> list[int]:
        """Examples of the anchor's key, one per positive: two questions to one passage are no negatives."""
        alike = self._catalog.with_key(int(self._catalog.key[anchor]))
        seen = {int(self._catalog.positive[anchor])}
        found: list[int] = []
        # Of a key with millions of examples, not all of which may be meant, so many are looked at.
        tried = islice(shuffled_all(len(alike), rng.integers(2**63, size=2).tolist()), _COMPANIONS_TRIED)
        for row in pool.among(np.asarray(alike[list(tried)])).tolist():
            positive = int(self._catalog.positive[row])
            if positive not in seen:
                seen.add(positive)
                found.append(row)
            if len(found) == share.group_size - 1:
                break
        return found

    def _candidates(self, share: SourceShare, rows: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Distinct items, the column of each row's positive, and which row brought which column."""
        column: dict[int, int] = {}
        targets = [column.setdefault(int(item), len(column)) for item in self._catalog.positive[rows]]
        brought = list(enumerate(targets))
        for place, row in enumerate(rows.tolist()):
            negatives = rng.permutation(self._catalog.negatives(row))[: share.negatives]
            brought += [(place, column.setdefault(item, len(column))) for item in negatives.tolist()]
        return np.array(list(column), dtype=np.int64), np.array(targets, dtype=np.int64), _pairs(brought)

    def _hidden(self, share: SourceShare, rows: Ints, candidates: Ints, targets: Ints) -> Ints:
        same_group = share.source in self._mask_same_group
        column = {item: place for place, item in enumerate(candidates.tolist())}
        pairs = []
        for place, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
            alike = self._catalog.false_negatives(row, mask_same_group=same_group)
            pairs += [(place, column[item]) for item in alike if item in column and column[item] != target]
        return _pairs(sorted(pairs))


def stage_plans(catalog: Catalog, config: TrainingConfig) -> list[BatchPlan]:
    """The batches of each phase of a stage."""
    return [
        BatchPlan(catalog, phase, number=number, seed=config.seed, mask_same_group=config.mask_same_group)
        for number, phase in enumerate(config.phases)
    ]


def share_out(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Split units over the ranks so that the sums of their costs are nearly equal.

    Longest processing time first (Graham 1969): the dearest unit left goes to the rank with the least work.

    Returns:
        The units of each rank, ascending.
    """
    heap = [(0.0, rank) for rank in range(ranks)]
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for unit in sorted(range(len(costs)), key=lambda unit: (-costs[unit], unit)):
        load, rank = heapq.heappop(heap)
        parts[rank].append(unit)
        heapq.heappush(heap, (load + costs[unit], rank))
    return [sorted(part) for part in parts]


def _pairs(pairs: Sequence[tuple[int, int]]) -> Ints:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _pool(catalog: Catalog, share: SourceShare) -> Rows:
    rows = catalog.rows(share.source, share.task_type, only_with_negatives=share.only_with_negatives)
    if not len(rows):
        raise FoundryError(
            f"No example of source '{share.source}' has hard negatives.",
            hint="Name it in mining.sources, or set only_with_negatives to false.",
        )
    return rows


def _turns(phase: PhaseConfig) -> list[tuple[int, int]]:
    """(source, how often it had its turn before) of each step: the source furthest behind its share goes next."""
    total = sum(share.weight for share in phase.mixture)
    done = [0] * len(phase.mixture)
    turns = []
    for step in range(phase.steps):
        lag = [share.weight / total * (step + 1) - done[i] for i, share in enumerate(phase.mixture)]
        which = lag.index(max(lag))
        turns.append((which, done[which]))
        done[which] += 1
    return turns
