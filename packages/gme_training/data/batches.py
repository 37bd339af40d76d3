"""Samples the batch of each step, as a pure function of (config, data, phase, step).

No state is kept between steps, so a run that resumes at step k sees the batches that it would have seen; and no array
is as long as the data, since permutations are computed element by element. Knows numbers of examples and items; not
texts, pictures or vectors.
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
from gme_training.data.shuffle import permutation, permuted

_COMPANIONS_TRIED = 1024
"""The most examples of a batch key that are looked at for a group; a key may have millions."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One global batch, of which each rank encodes a part.

    Attributes:
        share: The source and its settings.
        rows: The examples, [Q]; each is the query of one row of the loss.
        candidates: Distinct items, [C]: the positives, then the hard negatives.
        targets: The column of each query's positive, [Q].
        false_negatives: Pairs (query, column) of candidates that are no negatives of a query, [h, 2].
        own_candidates: Pairs (query, column) of each query's positive and its own hard negatives, [b, 2].
        seed: The seed of this batch's augmentation.
    """

    share: SourceShare
    rows: Ints
    candidates: Ints
    targets: Ints
    false_negatives: Ints
    own_candidates: Ints
    seed: tuple[int, ...]

    @property
    def digest(self) -> str:
        """A digest of the examples and candidates in their order; equal digests mean equal data."""
        return sha256_bytes(self.rows.tobytes() + self.candidates.tobytes())[:12]


class BatchSampler:
    """Samples the batches of one phase.

    Args:
        catalog: The training set.
        phase: Its mixture and number of steps.
        seed: The seed of the stage.
        number: The phase's position in the stage.
        mask_same_group: Sources in which the same fact of a look-alike is no negative.
    """

    def __init__(
        self, catalog: Catalog, phase: PhaseConfig, *, number: int, seed: int, mask_same_group: Sequence[str] = ()
    ) -> None:
        self._catalog, self.phase = catalog, phase
        self._seed = (seed, number)
        self._mask_same_group = frozenset(mask_same_group)
        self._turns = _turns(phase)
        self._source_rows = [_rows_of(catalog, share) for share in phase.mixture]

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step of the phase, counted from 0."""
        source, turn = self._turns[step]
        share = self.phase.mixture[source]
        # Seeded by the turn of the source and not by the step: batches of a source don't depend on the other sources.
        rng = np.random.default_rng([*self._seed, source, turn])
        rows = self._sample_rows(share, source, turn, rng)
        candidates, targets, own_candidates = self._candidates(share, rows, rng)
        return Batch(
            share=share,
            rows=rows,
            candidates=candidates,
            targets=targets,
            false_negatives=self._false_negatives(share, rows, candidates, targets),
            own_candidates=own_candidates,
            seed=(*self._seed, source, turn),
        )

    def sampled_rows(self) -> Ints:
        """Returns the examples that the whole phase samples, ascending."""
        rows = []
        for source, turn in self._turns:
            rng = np.random.default_rng([*self._seed, source, turn])
            rows.append(self._sample_rows(self.phase.mixture[source], source, turn, rng))
        return np.unique(np.concatenate(rows))

    def _sample_rows(self, share: SourceShare, source: int, turn: int, rng: np.random.Generator) -> Ints:
        """Takes the next anchors of the source's epochs, and for the first of them other examples of their batch key."""
        source_rows = self._source_rows[source]
        size = min(share.batch_size, len(source_rows))
        groups = int(size * share.grouped) // share.group_size
        anchors = size - groups * (share.group_size - 1)
        order = self._in_epochs(source_rows, source, np.arange(turn * anchors, (turn + 1) * anchors)).tolist()
        # A dict as an ordered set: the order of the rows is part of the batch.
        sampled: dict[int, None] = {}
        for anchor in order[:groups]:
            sampled.setdefault(anchor)
            sampled.update(dict.fromkeys(self._companions(share, source_rows, anchor, rng)))
        sampled.update(dict.fromkeys(order[groups:]))
        # A key may have fewer examples than a group, and groups may overlap with single anchors: fill up at random.
        filler = permutation(len(source_rows), [*self._seed, source, turn, len(source_rows)])
        while len(sampled) < size:
            sampled.setdefault(int(source_rows.at(np.array([next(filler)]))[0]))
        return np.array(list(sampled)[:size], dtype=np.int64)

    def _in_epochs(self, source_rows: Rows, source: int, positions: Ints) -> Ints:
        """Returns the rows at some positions of an endless sequence of epochs, each a permutation of `source_rows`."""
        epochs, within = np.divmod(positions, len(source_rows))
        permuted_positions = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            of_epoch = epochs == epoch
            seed = [*self._seed, source, epoch, len(source_rows)]
            permuted_positions[of_epoch] = permuted(within[of_epoch], len(source_rows), seed)
        return source_rows.at(permuted_positions)

    def _companions(self, share: SourceShare, source_rows: Rows, anchor: int, rng: np.random.Generator) -> list[int]:
        """Samples examples of the anchor's batch key, one per positive: two questions to one passage don't contrast."""
        same_key = self._catalog.rows_with_key(int(self._catalog.key[anchor]))
        positives = {int(self._catalog.positive[anchor])}
        companions: list[int] = []
        order = permutation(len(same_key), rng.integers(2**63, size=2).tolist())
        tried = np.asarray(same_key[list(islice(order, _COMPANIONS_TRIED))])
        for row in source_rows.intersection(tried).tolist():
            positive = int(self._catalog.positive[row])
            if positive not in positives:
                positives.add(positive)
                companions.append(row)
            if len(companions) == share.group_size - 1:
                break
        return companions

    def _candidates(self, share: SourceShare, rows: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Returns the distinct items, the column of each row's positive, and each row's own candidates."""
        column: dict[int, int] = {}
        targets = [column.setdefault(int(item), len(column)) for item in self._catalog.positive[rows]]
        own_candidates = list(enumerate(targets))
        for query, row in enumerate(rows.tolist()):
            negatives = rng.permutation(self._catalog.negatives(row))[: share.num_negatives]
            own_candidates += [(query, column.setdefault(item, len(column))) for item in negatives.tolist()]
        return np.array(list(column), dtype=np.int64), np.array(targets, dtype=np.int64), _as_pairs(own_candidates)

    def _false_negatives(self, share: SourceShare, rows: Ints, candidates: Ints, targets: Ints) -> Ints:
        same_group = share.source in self._mask_same_group
        column = {item: number for number, item in enumerate(candidates.tolist())}
        pairs = []
        for query, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
            items = self._catalog.false_negatives(row, mask_same_group=same_group)
            pairs += [(query, column[item]) for item in items if item in column and column[item] != target]
        return _as_pairs(sorted(pairs))


def batch_samplers(catalog: Catalog, config: TrainingConfig) -> list[BatchSampler]:
    """Returns the sampler of each phase of a stage."""
    return [
        BatchSampler(catalog, phase, number=number, seed=config.seed, mask_same_group=config.mask_same_group)
        for number, phase in enumerate(config.phases)
    ]


def assign_to_ranks(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Splits units over the ranks so that the sums of their costs are nearly equal.

    Longest processing time first (Graham 1969): the most expensive unit that is left goes to the rank with the least
    work.

    Returns:
        The units of each rank, ascending.
    """
    loads = [(0.0, rank) for rank in range(ranks)]
    units_per_rank: list[list[int]] = [[] for _ in range(ranks)]
    for unit in sorted(range(len(costs)), key=lambda unit: (-costs[unit], unit)):
        load, rank = heapq.heappop(loads)
        units_per_rank[rank].append(unit)
        heapq.heappush(loads, (load + costs[unit], rank))
    return [sorted(units) for units in units_per_rank]


def _as_pairs(pairs: Sequence[tuple[int, int]]) -> Ints:
    # Without the reshape no pairs would be an array [0], not [0, 2].
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _rows_of(catalog: Catalog, share: SourceShare) -> Rows:
    rows = catalog.rows(share.source, share.task_type, only_with_negatives=share.only_with_negatives)
    if not len(rows):
        raise FoundryError(
            f"No example of source '{share.source}' has hard negatives.",
            hint="Name it in mining.sources, or set only_with_negatives to false.",
        )
    return rows


def _turns(phase: PhaseConfig) -> list[tuple[int, int]]:
    """Returns (source, its turns so far) for each step: the source that is furthest behind its weight goes next."""
    # Not sampled: after any number of steps each source has had its share to within one step.
    total = sum(share.weight for share in phase.mixture)
    done = [0] * len(phase.mixture)
    turns = []
    for step in range(phase.steps):
        lag = [share.weight / total * (step + 1) - done[i] for i, share in enumerate(phase.mixture)]
        source = lag.index(max(lag))
        turns.append((source, done[source]))
        done[source] += 1
    return turns
