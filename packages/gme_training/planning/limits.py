"""How large a stage may be on given hardware, and which settings would make it smaller.

Tries configurations one after the other; each takes a millisecond. Knows what may be changed; no formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from gme_training.config import PhaseConfig, TrainingConfig
from gme_training.planning.activations import MicroBatch, RankStep
from gme_training.planning.stage_load import (
    TrainingSetup,
    hours_of,
    memory_of,
    peak_bytes,
    stage_flops,
    step_of_source,
)
from gme_training.planning.workload import average_lengths, longest_lengths

_UNLIMITED = 2**50
"""More pairs or bytes than any machine has."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How large micro-batches and batches may be before memory is full; 0 where not even one item fits.

    Attributes:
        micro_batch: The tokens of a micro-batch of the longest items, if no other graph is retained.
        retained: The pairs in a step whose graphs are all retained, of average items.
        cached: The pairs in a step of which one graph exists at a time, so that vectors and visual tokens are what
            fills the memory.
    """

    micro_batch: int
    retained: int
    cached: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """A stage with some settings changed.

    Attributes:
        changes: The fields and their values, dotted as for ``--set``.
        peak: The bytes that a device needs.
        hours: The hours of the whole stage.
        fits: Whether a device has as many bytes.
    """

    changes: dict[str, Any]
    peak: float
    hours: float
    fits: bool


def size_limits(config: TrainingConfig, setup: TrainingSetup, phase: PhaseConfig) -> SizeLimits:
    """Returns the limits of a phase, by the source with its largest batches."""
    length, picture = longest_lengths(config, setup.assumptions).item("IT")
    share = max(phase.mixture, key=lambda source: source.batch_size)

    def fits(step: RankStep) -> bool:
        return memory_of(config, setup, phase, step).peak <= setup.accelerator.memory

    def single_graph(tokens: int) -> RankStep:
        batch = MicroBatch(tokens / length, length, setup.assumptions.prompt, picture)
        # Two of them, so that the gradients of the first lie beside the graph of the second.
        return RankStep(((batch, 2),), 0, 2 * setup.count * batch.items, batch.items)

    def batch(pairs: int, retained_bytes: float) -> RankStep:
        step = step_of_source(config, setup, phase, share, average_lengths(config, setup.assumptions), pairs)
        return replace(step, retained_bytes=retained_bytes)

    return SizeLimits(
        micro_batch=_largest(lambda tokens: fits(single_graph(tokens))),
        retained=_largest(lambda pairs: fits(batch(pairs, _UNLIMITED))),
        cached=_largest(lambda pairs: fits(batch(pairs, 0))),
    )


def _largest(fits: Callable[[int], bool]) -> int:
    """Returns the largest whole number that fits, to one part in 128; 0 if 1 does not fit."""
    if not fits(1):
        return 0
    # Double, then halve the step: some sixty tries at most, each of which is a formula.
    low = 1
    while low < _UNLIMITED and fits(2 * low):
        low *= 2
    step = low // 2
    while step > low // 128:
        low, step = (low + step if fits(low + step) else low), step // 2
    return low


def alternatives(config: TrainingConfig, setup: TrainingSetup) -> tuple[Alternative, ...]:
    """Returns what each setting would save, and, if none of them is enough, the fewest settings that are."""

    def try_changes(changes: dict[str, Any]) -> Alternative:
        changed = _with_changes(config, changes)
        needed = peak_bytes(changed, setup)
        hours = hours_of(stage_flops(changed, setup), changed, setup)
        return Alternative(changes, needed, hours, needed <= setup.accelerator.memory)

    cache = config.gradient_cache
    every_change: tuple[dict[str, Any], ...] = (
        {"frozen_weights": "bfloat16"},
        {"activation_checkpointing": True},
        {"zero_stage": 2},
        {"gradient_cache.micro_batch_tokens": max(1, cache.micro_batch_tokens // 2)},
        {"gradient_cache.retained_mib": 0},
    )
    useful = [changes for changes in every_change if _with_changes(config, changes) != config]
    single = [try_changes(changes) for changes in useful]
    if any(alternative.fits for alternative in single):
        return tuple(single)
    combined = (
        try_changes({name: value for changes in combination for name, value in changes.items()})
        for size in range(2, len(useful) + 1)
        for combination in combinations(useful, size)
    )
    enough = next((alternative for alternative in combined if alternative.fits), None)
    return (*single, enough) if enough else tuple(single)


def _with_changes(config: TrainingConfig, changes: dict[str, Any]) -> TrainingConfig:
    """Returns the stage with some fields set; those of the gradient cache are named ``gradient_cache.field``."""
    prefix = "gradient_cache."
    fields = {name: value for name, value in changes.items() if not name.startswith(prefix)}
    cache = {name.removeprefix(prefix): value for name, value in changes.items() if name.startswith(prefix)}
    return config.model_copy(update={**fields, "gradient_cache": config.gradient_cache.model_copy(update=cache)})
