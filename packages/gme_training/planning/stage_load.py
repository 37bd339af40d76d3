"""The load of a training stage on given hardware: what its steps encode, their peak memory, operations and time.

Combines workload, memory and operations for one configuration; tries no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gme_embedder.costs import Architecture
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.planning.accelerators import Accelerator
from gme_training.planning.activations import Numerics, RankStep, graph_bytes
from gme_training.planning.flops import TrainingFlops, step_flops
from gme_training.planning.memory import StepMemory, estimate_memory
from gme_training.planning.states import Sharding
from gme_training.planning.workload import (
    ItemGroup,
    Lengths,
    StageAssumptions,
    average_lengths,
    item_groups,
    longest_lengths,
    rank_step,
)

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A model, the hardware it is trained on, and assumptions.

    Attributes:
        architecture: The model that is trained.
        count: The number of devices, one rank each.
        accelerator: The kind of the devices.
        assumptions: Assumed lengths, utilisation and prices.
    """

    architecture: Architecture
    count: int
    accelerator: Accelerator
    assumptions: StageAssumptions


def numerics_of(config: TrainingConfig, phase: PhaseConfig) -> Numerics:
    """Returns what a phase trains, in what precision."""
    return Numerics(
        # A learning rate of 0 freezes a part, whatever adapters the stage has.
        text="frozen" if not phase.text_learning_rate else "adapters" if config.lora else "full",
        rank=config.lora.rank if config.lora else 0,
        vision=bool(phase.vision_learning_rate),
        autocast=config.autocast,
        frozen_half=config.frozen_weights == "bfloat16",
        checkpointing=config.activation_checkpointing,
        tower_only=phase.objective == "tower",
    )


def memory_of(config: TrainingConfig, setup: TrainingSetup, phase: PhaseConfig, step: RankStep) -> StepMemory:
    """Estimates the memory of a step of a phase."""
    sharding = Sharding(config.zero_stage, setup.count)
    numerics = numerics_of(config, phase)
    return estimate_memory(setup.architecture, numerics, sharding, step, setup.assumptions.overhead)


def step_of_source(
    config: TrainingConfig,
    setup: TrainingSetup,
    phase: PhaseConfig,
    share: SourceShare,
    lengths: Lengths,
    queries: float,
) -> RankStep:
    """Returns one rank's part of a batch of so many queries of a source."""
    groups = item_groups(share, setup.assumptions.task_types, lengths, queries)
    return rank_step(groups, config, setup.count, setup.assumptions.prompt, numerics_of(config, phase))


def peak_step(config: TrainingConfig, setup: TrainingSetup, lengths: Lengths) -> tuple[PhaseConfig, StepMemory]:
    """Returns the phase and the memory of the step that needs the most, if all items have these `lengths`."""
    candidates = []
    for phase, share, _ in source_steps(config):
        step = step_of_source(config, setup, phase, share, lengths, share.batch_size)
        # A phase of the tower alone skips sources without pictures.
        if step.micro_batches:
            candidates.append((phase, memory_of(config, setup, phase, step)))
    return max(candidates, key=lambda candidate: candidate[1].peak)


def peak_bytes(config: TrainingConfig, setup: TrainingSetup) -> float:
    """Returns the most bytes that a device needs.

    Longer items do not always need more memory: as many graphs are retained as fit, and the last of them may exceed the
    limit. So both average and longest items are tried.
    """
    return max(
        peak_step(config, setup, lengths(config, setup.assumptions))[1].peak
        for lengths in (average_lengths, longest_lengths)
    )


def source_steps(config: TrainingConfig) -> list[tuple[PhaseConfig, SourceShare, float]]:
    """Returns each source of each phase, and the number of steps that the phase takes of it."""
    return [
        (phase, share, phase.steps * share.weight / sum(other.weight for other in phase.mixture))
        for phase in config.phases
        for share in phase.mixture
    ]


def expected_items(config: TrainingConfig, setup: TrainingSetup) -> list[ItemGroup]:
    """Returns the items that all steps sample, of average length, as if none were sampled twice."""
    lengths = average_lengths(config, setup.assumptions)
    return [
        group
        for _, share, steps in source_steps(config)
        for group in item_groups(share, setup.assumptions.task_types, lengths, steps * share.batch_size)
    ]


def expected_tokens(config: TrainingConfig, setup: TrainingSetup) -> float:
    """Returns the tokens of all steps without the prompts' heads, each counted once."""
    return math.fsum(group.items * group.length for group in expected_items(config, setup))


def stage_flops(config: TrainingConfig, setup: TrainingSetup) -> TrainingFlops:
    """Returns the operations of all steps and devices, with average items."""
    total = TrainingFlops(0, 0, 0, 0)
    lengths = average_lengths(config, setup.assumptions)
    for phase, share, steps in source_steps(config):
        numerics = numerics_of(config, phase)
        step = step_of_source(config, setup, phase, share, lengths, share.batch_size)
        graphs = [(graph_bytes(setup.architecture, batch, numerics), number) for batch, number in step.micro_batches]
        total += step_flops(setup.architecture, numerics, step, graphs).times(steps * setup.count)
    return total


def hours_of(flops: TrainingFlops, config: TrainingConfig, setup: TrainingSetup) -> float:
    """Returns the hours that all devices together need, at the assumed share of their peak speed."""
    speed = setup.count * setup.accelerator.peak(autocast=config.autocast) * setup.assumptions.utilisation
    return flops.total / speed / _SECONDS_PER_HOUR
