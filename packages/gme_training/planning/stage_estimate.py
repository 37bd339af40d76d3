"""The estimate of one training stage on given hardware: parameters, memory, limits, operations, time, cost and storage.

Collects what the other modules compute. Knows no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from gme_embedder.costs import Architecture, architecture_of, tiny_architecture
from gme_training.config import TrainingConfig
from gme_training.planning.activations import Numerics
from gme_training.planning.flops import TrainingFlops
from gme_training.planning.limits import Alternative, SizeLimits, alternatives, size_limits
from gme_training.planning.memory import StepMemory
from gme_training.planning.stage_load import (
    TrainingSetup,
    expected_items,
    expected_tokens,
    hours_of,
    numerics_of,
    peak_step,
    source_steps,
    stage_flops,
)
from gme_training.planning.states import ParameterCounts, count_parameters
from gme_training.planning.storage import Storage, storage_of
from gme_training.planning.workload import average_lengths, longest_lengths


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What a stage needs; memory in bytes of one device, operations over all devices and steps.

    Attributes:
        parameters: The parameters, in the phase that needs the most memory.
        by_part: For each part of the model, the number of all parameters and of the trained ones.
        memory: The memory of the step of that phase that needs the most, with average or with the longest items.
        longest_peak: The peak if all items are as long as they may be.
        average_peak: The peak with average items.
        capacity: The bytes that a device has.
        limits: How large micro-batches and batches may be.
        steps: The number of optimizer steps.
        pairs: The pairs of query and positive in all steps.
        tokens: The tokens that are encoded in all steps, each counted once.
        flops: The operations of all steps.
        hours: The time at the assumed utilisation.
        dollars: The cost; None without a price.
        storage: The bytes on disk.
        alternatives: Each change on its own, then the fewest changes that make the stage fit if no single one does.
    """

    parameters: ParameterCounts
    by_part: dict[str, tuple[int, int]]
    memory: StepMemory
    longest_peak: float
    average_peak: float
    capacity: float
    limits: SizeLimits
    steps: int
    pairs: float
    tokens: float
    flops: TrainingFlops
    hours: float
    dollars: float | None
    storage: Storage
    alternatives: tuple[Alternative, ...]

    @property
    def fits(self) -> bool:
        """Whether a device has enough memory."""
        return max(self.longest_peak, self.average_peak) <= self.capacity


def stage_architecture(config: TrainingConfig) -> Architecture:
    """Returns the architecture of the model that a stage starts from.

    Raises:
        FoundryError: A base whose architecture is not known.
    """
    return architecture_of(config.base.model) if config.base else tiny_architecture(config.model)


def estimate_stage(config: TrainingConfig, setup: TrainingSetup) -> StageEstimate:
    """Estimates a stage with one rank on each device of `setup`, whatever number of ranks its configuration has."""
    average = peak_step(config, setup, average_lengths(config, setup.assumptions))
    longest = peak_step(config, setup, longest_lengths(config, setup.assumptions))
    phase, memory = max(average, longest, key=lambda candidate: candidate[1].peak)
    numerics = numerics_of(config, phase)
    parameters = count_parameters(setup.architecture, numerics)
    flops = stage_flops(config, setup)
    hours = hours_of(flops, config, setup)
    price = setup.assumptions.dollars
    return StageEstimate(
        parameters=parameters,
        by_part=_by_part(setup.architecture, numerics),
        memory=memory,
        longest_peak=longest[1].peak,
        average_peak=average[1].peak,
        capacity=setup.accelerator.memory,
        limits=size_limits(config, setup, phase),
        steps=config.steps,
        pairs=sum(steps * share.batch_size for _, share, steps in source_steps(config)),
        tokens=expected_tokens(config, setup),
        flops=flops,
        hours=hours,
        dollars=None if price is None else price * hours * setup.count,
        storage=storage_of(config, setup.architecture, parameters.trained, expected_items(config, setup)),
        alternatives=alternatives(config, setup),
    )


def _by_part(architecture: Architecture, numerics: Numerics) -> dict[str, tuple[int, int]]:
    language, tower = architecture.language, architecture.tower
    adapters = language.adapters(numerics.rank) if numerics.text == "adapters" else 0
    # With adapters only the final norm of the language part itself is trained.
    trained = {"full": language.parameters, "adapters": language.width, "frozen": 0}[numerics.text]
    parts = {
        "token table": (language.table, 0),
        "language part": (language.parameters, trained),
        "vision tower": (tower.parameters, tower.parameters if numerics.vision else 0),
    }
    return parts | ({"adapters": (adapters, adapters)} if adapters else {})
