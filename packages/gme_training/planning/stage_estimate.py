"""The plan of one training stage on given hardware: parameters, memory, limits, work, time, cost and storage.

Collects what the other modules work out. Knows no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from gme_embedder.costs import Architecture, architecture_of, tiny_architecture
from gme_training.config import TrainingConfig
from gme_training.planning.activations import Numerics
from gme_training.planning.flops import Work
from gme_training.planning.limits import Alternative, Largest, alternatives, largest
from gme_training.planning.memory import Memory
from gme_training.planning.stage_load import (
    Site,
    drawn,
    hours_of,
    longest,
    numerics,
    shares,
    tokens,
    usual,
    work_of,
    worst,
)
from gme_training.planning.states import Parameters, count_parameters
from gme_training.planning.storage import Storage, storage_of


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage needs; memory in bytes of one device, work in FLOP over all devices and steps.

    Attributes:
        parameters: Of the phase that needs the most memory.
        by_part: Of each part of the model, all parameters and the trained ones.
        memory: Of that phase's worst step, whether with average items or with the longest.
        longest: Peak of the worst step if all items are as long as they may be.
        usual: Peak of the worst step with average items.
        capacity: Bytes that a device has.
        largest: Limits.
        steps: Optimizer steps.
        pairs: Seen in all steps.
        tokens: Encoded in all steps, each once.
        work: Of all steps.
        hours: At the assumed utilisation.
        dollars: None without a price.
        storage: Bytes on disk.
        alternatives: Each change on its own, then the fewest that make it fit if it does not.
    """

    parameters: Parameters
    by_part: dict[str, tuple[int, int]]
    memory: Memory
    longest: float
    usual: float
    capacity: float
    largest: Largest
    steps: int
    pairs: float
    tokens: float
    work: Work
    hours: float
    dollars: float | None
    storage: Storage
    alternatives: tuple[Alternative, ...]

    @property
    def fits(self) -> bool:
        """Whether a device has enough memory."""
        return max(self.longest, self.usual) <= self.capacity


def stage_architecture(config: TrainingConfig) -> Architecture:
    """The shapes of the model that a stage starts from.

    Raises:
        FoundryError: A base whose shapes are not known.
    """
    return architecture_of(config.base.model) if config.base else tiny_architecture(config.model)


def plan_stage(config: TrainingConfig, site: Site) -> StagePlan:
    """The plan of a stage; the number of ranks in its configuration is not used."""
    average, most = (worst(config, site, lengths(config, site)) for lengths in (usual, longest))
    phase, memory = max(average, most, key=lambda one: one[1].peak)
    how, work = numerics(config, phase), work_of(config, site)
    parameters, hours = count_parameters(site.shape, how), hours_of(work, config, site)
    price = site.given.dollars
    return StagePlan(
        parameters=parameters,
        by_part=_by_part(site.shape, how),
        memory=memory,
        longest=most[1].peak,
        usual=average[1].peak,
        capacity=site.device.memory,
        largest=largest(config, site, phase),
        steps=config.steps,
        pairs=sum(steps * share.batch_size for _, share, steps in shares(config)),
        tokens=tokens(config, site),
        work=work,
        hours=hours,
        dollars=None if price is None else price * hours * site.count,
        storage=storage_of(config, site.shape, parameters.trained, drawn(config, site)),
        alternatives=alternatives(config, site),
    )


def _by_part(shape: Architecture, how: Numerics) -> dict[str, tuple[int, int]]:
    text, adapters = shape.language, shape.language.adapters(how.rank) if how.text == "adapters" else 0
    trained = {"full": text.parameters, "adapters": text.width, "frozen": 0}[how.text]
    parts = {
        "token table": (text.table, 0),
        "language part": (text.parameters, trained),
        "vision tower": (shape.tower.parameters, shape.tower.parameters if how.vision else 0),
    }
    return parts | ({"adapters": (adapters, adapters)} if adapters else {})
