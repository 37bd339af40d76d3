"""Floating point operations of a training step: forward, backward, and what the gradient cache does again.

A forward is 2 operations a weight and token; a backward is 2 more for the gradient of the input and, where the weight
is trained, 2 for its own (Kaplan et al. 2020, arXiv:2001.08361, section 2.1, where all are trained: 6 N D). Knows
counts; not the speed of any device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from gme_embedder.costs import Architecture, EncodingLoad, adapter_flops, forward_flops
from gme_training.planning.activations import Numerics
from gme_training.planning.memory import Step, kept_graphs
from gme_training.planning.workload import load_of_step


@dataclass(frozen=True, slots=True)
class Work:
    """Operations, in FLOP.

    Attributes:
        forward: The first encoding, with a frozen tower's only one.
        backward: Gradients of inputs and of trained weights.
        again: The second encoding of micro-batches whose graph was not kept.
        recomputed: Layers computed once more in the backward, by activation checkpointing.
    """

    forward: float
    backward: float
    again: float
    recomputed: float

    @property
    def total(self) -> float:
        """Their sum."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def times(self, factor: float) -> Work:
        """So many times as much."""
        return Work(*(getattr(self, field.name) * factor for field in fields(self)))


def step_work(shape: Architecture, how: Numerics, step: Step, graphs: list[tuple[float, int]]) -> Work:
    """Operations of one rank in a step.

    Args:
        shape: The model.
        how: What is trained.
        step: The rank's micro-batches.
        graphs: Bytes of each one's graph, and how many are alike, in the order of the step.
    """
    left = kept_graphs(graphs, step.kept_bytes)
    total = Work(0, 0, 0, 0)
    for load, count in load_of_step(step):
        kept = min(left, count)
        left -= kept
        once = _work(shape, how, load)
        total += once.times(count) + Work(0, 0, _encoding(shape, how, load) * (count - kept), 0)
    return total


def _work(shape: Architecture, how: Numerics, load: EncodingLoad) -> Work:
    """Of a micro-batch that is encoded once."""
    language = _language(shape, how, load)
    tower = forward_flops(shape, load).tower
    recomputed = language if how.checkpointing and how.text != "frozen" else 0
    return Work(language + tower, _backward(shape, how, load), 0, recomputed)


def _language(shape: Architecture, how: Numerics, load: EncodingLoad) -> float:
    if how.tower_only:
        return 0
    flops = forward_flops(shape, load)
    own = adapter_flops(shape.language, how.rank, load) if how.text == "adapters" else 0
    return flops.language + flops.attention + own


def _encoding(shape: Architecture, how: Numerics, load: EncodingLoad) -> float:
    """A second forward; what a frozen tower said is remembered."""
    return _language(shape, how, load) + (forward_flops(shape, load).tower if how.vision else 0)


def _backward(shape: Architecture, how: Numerics, load: EncodingLoad) -> float:
    flops, text, tower = forward_flops(shape, load), shape.language, shape.tower
    # The kernel over pixels has no gradient of its input.
    looking = (2 * flops.tower - 2 * tower.pixels * tower.width * load.patches) * how.vision
    if how.tower_only:
        return looking
    own = 2 * adapter_flops(text, how.rank, load) if how.text == "adapters" else 0
    weights = flops.language if how.text == "full" else 0
    # Below the first layer nothing asks, unless the tower does; a trained norm asks for its own sake.
    unasked = 0.0
    if how.text == "adapters" and not how.vision:
        unasked = 2 * load.tokens * (text.width * (text.queries + 2 * text.keys) + 3 * how.rank * text.width)
    return looking + flops.language - unasked + weights + 2 * flops.attention + own
