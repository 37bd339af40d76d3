"""Floating point operations of a training step: forward, backward, and the second forward of the gradient cache.

A forward is 2 operations for each weight and token; a backward is 2 more for the gradient of the input and, where the
weight is trained, 2 for its own (Kaplan et al. 2020, arXiv:2001.08361, section 2.1, where all are trained: 6 N D).
Knows counts; not the speed of any device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from gme_embedder.costs import Architecture, EncodingLoad, adapter_flops, forward_flops
from gme_training.planning.activations import Numerics, RankStep, retained_graphs
from gme_training.planning.workload import step_loads


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """Floating point operations.

    Attributes:
        forward: The first forward, in which a frozen tower runs for the only time.
        backward: The gradients of inputs and of trained weights.
        second_forward: The second forward of micro-batches whose graph was not retained.
        recomputed: Layers that are computed once more in the backward, by activation checkpointing.
    """

    forward: float
    backward: float
    second_forward: float
    recomputed: float

    @property
    def total(self) -> float:
        """The sum of all operations."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def __add__(self, other: TrainingFlops) -> TrainingFlops:
        return TrainingFlops(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, factor: float) -> TrainingFlops:
        """Returns `factor` times as many operations."""
        return TrainingFlops(*(getattr(self, field.name) * factor for field in fields(self)))


def step_flops(
    architecture: Architecture, numerics: Numerics, step: RankStep, graphs: list[tuple[float, int]]
) -> TrainingFlops:
    """Returns the operations of one rank in a step.

    Args:
        architecture: The model.
        numerics: What is trained.
        step: The rank's micro-batches.
        graphs: For each kind of micro-batch the bytes of its graph, and how many there are, in the order of the step.
    """
    retained_left = retained_graphs(graphs, step.retained_bytes)
    total = TrainingFlops(0, 0, 0, 0)
    for load, count in step_loads(step):
        retained = min(retained_left, count)
        retained_left -= retained
        language = _language_forward(architecture, numerics, load)
        tower = forward_flops(architecture, load).tower
        recomputed = language if numerics.checkpointing and numerics.text != "frozen" else 0
        once = TrainingFlops(language + tower, _backward(architecture, numerics, load), 0, recomputed)
        # The output of a frozen tower is stored for the second forward.
        second = language + (tower if numerics.vision else 0)
        total += once.times(count) + TrainingFlops(0, 0, second * (count - retained), 0)
    return total


def _language_forward(architecture: Architecture, numerics: Numerics, load: EncodingLoad) -> float:
    if numerics.tower_only:
        return 0
    flops = forward_flops(architecture, load)
    adapters = adapter_flops(architecture.language, numerics.rank, load) if numerics.text == "adapters" else 0
    return flops.language + flops.attention + adapters


def _backward(architecture: Architecture, numerics: Numerics, load: EncodingLoad) -> float:
    flops, text, tower = forward_flops(architecture, load), architecture.language, architecture.tower
    # The kernel over pixels has no gradient of its input.
    vision = (2 * flops.tower - 2 * tower.pixels * tower.width * load.patches) * numerics.vision
    if numerics.tower_only:
        return vision
    adapters = 2 * adapter_flops(text, numerics.rank, load) if numerics.text == "adapters" else 0
    weights = flops.language if numerics.text == "full" else 0
    # The input of the first layer's projections needs no gradient, unless the tower is trained.
    not_needed = 0.0
    if numerics.text == "adapters" and not numerics.vision:
        per_token = text.width * (text.queries + 2 * text.keys) + 3 * numerics.rank * text.width
        not_needed = 2 * load.tokens * per_token
    return vision + flops.language - not_needed + weights + 2 * flops.attention + adapters
