"""How large a stage may be on given hardware, and which settings would make it smaller.

Tries configurations one after the other; each costs a millisecond. Knows what may be changed; no formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from gme_training.config import PhaseConfig, TrainingConfig
from gme_training.planning.activations import MicroBatch
from gme_training.planning.memory import Step
from gme_training.planning.stage_load import Site, hours_of, longest, memory_of, peak, step_for, usual, work_of

_MANY = 2**50  # pairs or bytes that nobody has


@dataclass(frozen=True, slots=True)
class Largest:
    """How large things may be before memory is full; 0 where not even one fits.

    Attributes:
        micro_batch: Tokens encoded at once, of the longest items, no other graph kept.
        plain: Pairs in a step whose graphs are all kept, of average items.
        cached: Pairs in a step of which one graph exists at a time; vectors and visual tokens are what is left.
    """

    micro_batch: int
    plain: int
    cached: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """A stage with some settings changed.

    Attributes:
        changes: Field and value, dotted as for ``--set``.
        peak: Bytes a device needs.
        hours: Of the whole stage.
        fits: Whether that is less than a device has.
    """

    changes: dict[str, Any]
    peak: float
    hours: float
    fits: bool


def largest(config: TrainingConfig, site: Site, phase: PhaseConfig) -> Largest:
    """Limits of a phase, by the source with its largest batches."""
    length, picture = longest(config, site).item("IT")
    share = max(phase.mixture, key=lambda one: one.batch_size)

    def fits(step: Step) -> bool:
        return memory_of(config, site, phase, step).peak <= site.device.memory

    def alone(tokens: int) -> Step:
        batch = MicroBatch(tokens / length, length, site.given.prompt, picture)
        return Step(((batch, 2),), 0, 2 * site.count * batch.items, batch.items)

    def batch(pairs: int, kept_bytes: float) -> Step:
        return replace(step_for(config, site, phase, share, usual(config, site), pairs), kept_bytes=kept_bytes)

    return Largest(
        micro_batch=_most(lambda tokens: fits(alone(tokens))),
        plain=_most(lambda pairs: fits(batch(pairs, _MANY))),
        cached=_most(lambda pairs: fits(batch(pairs, 0))),
    )


def _most(fits: Callable[[int], bool]) -> int:
    """The largest whole number that still fits, to one part in 128; 0 if 1 does not."""
    if not fits(1):
        return 0
    low = 1
    while low < _MANY and fits(2 * low):
        low *= 2
    step = low // 2
    while step > low // 128:
        low, step = (low + step if fits(low + step) else low), step // 2
    return low


_CHANGES: tuple[dict[str, Any], ...] = (
    {"frozen_weights": "bfloat16"},
    {"activation_checkpointing": True},
    {"zero_stage": 2},
)


def alternatives(config: TrainingConfig, site: Site) -> tuple[Alternative, ...]:
    """What each setting would save, and the fewest settings that make a stage fit that does not."""

    def tried(changes: dict[str, Any]) -> Alternative:
        changed = _changed(config, changes)
        needed = peak(changed, site)
        hours = hours_of(work_of(changed, site), changed, site)
        return Alternative(changes, needed, hours, needed <= site.device.memory)

    useful = [one for one in (*_CHANGES, *_smaller(config)) if _changed(config, one) != config]
    alone = [tried(one) for one in useful]
    if any(one.fits for one in alone):
        return tuple(alone)
    together = (
        tried({name: value for one in some for name, value in one.items()})
        for size in range(2, len(useful) + 1)
        for some in combinations(useful, size)
    )
    enough = next((one for one in together if one.fits), None)
    return (*alone, enough) if enough else tuple(alone)


def _smaller(config: TrainingConfig) -> tuple[dict[str, Any], ...]:
    cache = config.cache
    return ({"cache.tokens": max(1, cache.tokens // 2)}, {"cache.kept_mib": 0})


def _changed(config: TrainingConfig, changes: dict[str, Any]) -> TrainingConfig:
    """With some fields set; those of the cache are named ``cache.field``."""
    own = {name: value for name, value in changes.items() if "." not in name}
    cache = {name.removeprefix("cache."): value for name, value in changes.items() if "." in name}
    return config.model_copy(update={**own, "cache": config.cache.model_copy(update=cache)})
