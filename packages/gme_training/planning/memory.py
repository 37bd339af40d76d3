"""Memory of one rank in a training step, term by term, at its two peaks: in the backward and in the optimizer step.

Knows bytes; neither what a GPU offers nor how long a step takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from gme_embedder.costs import Architecture
from gme_training.planning.activations import (
    FLOAT,
    Numerics,
    RankStep,
    feature_bytes,
    graph_bytes,
    retained_graphs,
    tower_forward_bytes,
    working_bytes,
)
from gme_training.planning.states import Sharding, count_parameters, optimizer_bytes, optimizer_step_bytes, weight_bytes

TILE = 2**18
"""A copy of `info_nce.TILE`, whose module imports torch."""
_TILE_STATES = 5
"""Numbers for each pair of a tile of the loss: cosines, logits, masked logits, weights and one temporary."""
_VECTOR_STATES = 8
"""Copies of every vector: as gathered, stacked, ordered and split, and the gradients of those."""


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """What is in memory at one moment of a step, in bytes.

    Attributes:
        weights: Weights, as stored.
        optimizer: The moments of AdamW, and ZeRO's float32 copy of this rank's partition of the weights.
        gradients: The accumulated gradients and those of the current micro-batch, or those handed to the engine.
        buffers: DeepSpeed's buckets, and this rank's partition of the reduced gradients.
        graphs: The retained graphs, or the one that is being backpropagated.
        working: Temporaries of the layer that is being computed, or of the loss.
        features: The visual tokens of a frozen tower, which are stored for the step.
        vectors: The vectors of the global batch with their gradients.
        overhead: The memory of the framework, by assumption.
    """

    weights: float
    optimizer: float
    gradients: float
    buffers: float
    graphs: float
    working: float
    features: float
    vectors: float
    overhead: float

    @property
    def total(self) -> float:
        """The sum of all terms."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Memory at both peaks of a step.

    Attributes:
        backward: Where graphs and gradients are largest.
        optimizer_step: In the optimizer's step.
        retained: The number of micro-batches whose graph is retained; the others are encoded twice.
        graph: The bytes of the largest graph.
    """

    backward: MemorySnapshot
    optimizer_step: MemorySnapshot
    retained: int
    graph: float

    @property
    def peak(self) -> float:
        """The bytes of the higher of both peaks."""
        return max(self.backward.total, self.optimizer_step.total)


def estimate_memory(
    architecture: Architecture, numerics: Numerics, sharding: Sharding, step: RankStep, overhead: float = 0
) -> StepMemory:
    """Estimates the memory of a rank at both peaks of a step.

    Args:
        architecture: The model.
        numerics: What is trained, in what precision.
        sharding: ZeRO stage and ranks.
        step: What the rank encodes.
        overhead: Bytes of the framework, of collectives and of fragmentation.
    """
    count = count_parameters(architecture, numerics)
    common = {
        "weights": weight_bytes(count, frozen_half=numerics.frozen_half),
        "optimizer": optimizer_bytes(count.trained, sharding),
        "overhead": overhead,
    }
    graphs = [(graph_bytes(architecture, batch, numerics), number) for batch, number in step.micro_batches]
    features = sum(feature_bytes(architecture, batch, numerics) * number for batch, number in step.micro_batches)
    vectors = _VECTOR_STATES * FLOAT * architecture.language.width * step.vectors
    snapshots = [
        MemorySnapshot(
            gradients=gradients,
            buffers=0,
            graphs=graph_total,
            working=working,
            features=features,
            vectors=vectors,
            **common,
        )
        for graph_total, gradients, working in _candidate_peaks(
            architecture, numerics, step, graphs, FLOAT * count.trained
        )
    ]
    gradients, buffers = optimizer_step_bytes(count.trained, sharding)
    optimizer_step = MemorySnapshot(
        gradients=gradients, buffers=buffers, graphs=0, working=0, features=0, vectors=0, **common
    )
    return StepMemory(
        max(snapshots, key=lambda snapshot: snapshot.total),
        optimizer_step,
        retained_graphs(graphs, step.retained_bytes),
        max(graph for graph, _ in graphs),
    )


def _candidate_peaks(
    architecture: Architecture,
    numerics: Numerics,
    step: RankStep,
    graphs: Sequence[tuple[float, int]],
    gradients: float,
) -> list[tuple[float, float, float]]:
    """Returns the bytes of graphs, gradients and working memory at the moments that may be the peak.

    They are a frozen tower's forward, the backward of the retained graphs, and that of one that is built again. During
    a backward its graph shrinks and its gradients grow, so the larger of both counts; the gradients of earlier
    micro-batches lie beside it.
    """
    retained = retained_graphs(graphs, step.retained_bytes)
    graph_total, retained_left = 0.0, retained
    for graph, number in graphs:
        graph_total += graph * min(number, retained_left)
        retained_left -= min(number, retained_left)
    largest = max(graph for graph, _ in graphs)
    working = max(working_bytes(architecture, batch, numerics) for batch, _ in step.micro_batches)
    tower_forward = max(tower_forward_bytes(architecture.tower, batch, numerics) for batch, _ in step.micro_batches)
    # The loss goes over the candidates in tiles.
    tile = _TILE_STATES * FLOAT * min(TILE, step.rows * step.vectors)
    peaks = [
        (0.0, 0.0, tower_forward),
        (graph_total, max(0.0, gradients - graph_total), max(working, tile)),
    ]
    if step.count > retained:
        earlier = gradients if step.count > 1 else 0.0
        peaks.append((largest, earlier + max(0.0, gradients - largest), working))
    return peaks
