"""A training stage on given hardware: what its steps encode, the memory of the worst, the work and time of all.

Puts workload, memory and work together for one configuration; tries no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gme_embedder.costs import Architecture
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.planning.accelerators import Accelerator
from gme_training.planning.activations import Numerics, graph_bytes
from gme_training.planning.flops import Work, step_work
from gme_training.planning.memory import Memory, Step, estimate
from gme_training.planning.states import Engine
from gme_training.planning.workload import Kind, Lengths, kinds_of, longest_lengths, step_of, tokens_of, usual_lengths

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What no configuration says.

    Attributes:
        text: Tokens of an average text.
        picture: Visual tokens of an average picture that keeps its proportions.
        prompt: Tokens of the prompt's head.
        utilisation: Share of the peak speed that all operations together reach, recomputed ones among them.
        overhead: Bytes on each device for CUDA's context, NCCL's buffers and fragmentation.
        task_types: Of sources, such as ``T->I``; others count as ``IT->IT``.
        dollars: For a device and hour; None for no costs.
    """

    text: float = 100
    picture: float = 252
    prompt: float = 17
    utilisation: float = 0.35
    overhead: float = 3 * 2**30
    task_types: Mapping[str, str] = field(default_factory=dict)
    dollars: float | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a stage runs.

    Attributes:
        shape: Of the model that is trained.
        count: Devices, one rank each.
        device: Their kind.
        given: What is assumed.
    """

    shape: Architecture
    count: int
    device: Accelerator
    given: Assumptions


def numerics(config: TrainingConfig, phase: PhaseConfig) -> Numerics:
    """What a phase trains, in what precision."""
    return Numerics(
        text="frozen" if not phase.text_learning_rate else "adapters" if config.lora else "full",
        rank=config.lora.rank if config.lora else 0,
        vision=bool(phase.vision_learning_rate),
        autocast=config.autocast,
        frozen_half=config.frozen_weights == "bfloat16",
        checkpointing=config.activation_checkpointing,
        tower_only=phase.objective == "tower",
    )


def usual(config: TrainingConfig, site: Site) -> Lengths:
    """Of average items, as assumed."""
    return usual_lengths(config, site.given.text, site.given.picture, site.given.prompt)


def longest(config: TrainingConfig, site: Site) -> Lengths:
    """Of items as long as the stage allows."""
    return longest_lengths(config, site.given.prompt)


def memory_of(config: TrainingConfig, site: Site, phase: PhaseConfig, step: Step) -> Memory:
    """Of a step of a phase."""
    engine = Engine(config.zero_stage, site.count)
    return estimate(site.shape, numerics(config, phase), engine, step, site.given.overhead)


def step_for(
    config: TrainingConfig, site: Site, phase: PhaseConfig, share: SourceShare, lengths: Lengths, queries: float
) -> Step:
    """One rank's part of a batch of so many queries of a source."""
    kinds = kinds_of(share, site.given.task_types, lengths, queries)
    return step_of(kinds, config, site.count, site.given.prompt, numerics(config, phase))


def worst(config: TrainingConfig, site: Site, lengths: Lengths) -> tuple[PhaseConfig, Memory]:
    """The phase and the memory of the step that needs the most, if items are as long as `lengths` says."""
    found = []
    for phase, share, _ in shares(config):
        step = step_for(config, site, phase, share, lengths, share.batch_size)
        if step.micro_batches:
            found.append((phase, memory_of(config, site, phase, step)))
    return max(found, key=lambda one: one[1].peak)


def peak(config: TrainingConfig, site: Site) -> float:
    """Bytes that a device needs at most.

    Longer items do not always need more: as many graphs are kept as fit, and the last of them may go over.
    """
    return max(worst(config, site, lengths(config, site))[1].peak for lengths in (usual, longest))


def shares(config: TrainingConfig) -> list[tuple[PhaseConfig, SourceShare, float]]:
    """Each source of each phase, and the steps in which it has its turn."""
    return [
        (phase, share, phase.steps * share.weight / sum(other.weight for other in phase.mixture))
        for phase in config.phases
        for share in phase.mixture
    ]


def drawn(config: TrainingConfig, site: Site) -> list[Kind]:
    """The items that all steps draw, of average length, as if nothing were drawn twice."""
    return [
        kind
        for _, share, steps in shares(config)
        for kind in kinds_of(share, site.given.task_types, usual(config, site), steps * share.batch_size)
    ]


def tokens(config: TrainingConfig, site: Site) -> float:
    """Tokens of all steps, each counted once."""
    return tokens_of(tuple(drawn(config, site)))


def work_of(config: TrainingConfig, site: Site) -> Work:
    """Operations of all steps and devices, with average items."""
    total = Work(0, 0, 0, 0)
    for phase, share, steps in shares(config):
        how = numerics(config, phase)
        step = step_for(config, site, phase, share, usual(config, site), share.batch_size)
        graphs = [(graph_bytes(site.shape, batch, how), number) for batch, number in step.micro_batches]
        total += step_work(site.shape, how, step, graphs).times(steps * site.count)
    return total


def hours_of(work: Work, config: TrainingConfig, site: Site) -> float:
    """Hours that all devices together need for `work`, at the assumed share of their peak."""
    speed = site.count * site.device.peak(autocast=config.autocast) * site.given.utilisation
    return work.total / speed / _HOUR
