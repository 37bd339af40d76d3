"""Memory of one rank in a training step, term by term, at its two summits: the backward and the engine's step.

Knows bytes; neither what a GPU offers nor how long a step takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from gme_embedder.costs import Architecture
from gme_training.planning.activations import (
    FLOAT,
    MicroBatch,
    Numerics,
    feature_bytes,
    graph_bytes,
    tower_forward_bytes,
    working_bytes,
)
from gme_training.planning.states import Engine, count_parameters, descent_bytes, optimizer_bytes, weight_bytes

TILE = 2**18
"""`info_nce.TILE`, whose module imports torch."""
_TILE_STATES = 5  # cosines, logits, masked logits, weights and one temporary of a tile of the loss
_VECTOR_STATES = 8  # every vector as gathered, stacked, ordered and split, and the gradients of those


@dataclass(frozen=True, slots=True)
class Step:
    """What one rank does in a step.

    Attributes:
        micro_batches: Its micro-batches in their order, each with how many there are of its kind.
        kept_bytes: Memory for graphs that are kept, `CacheConfig.kept_mib`.
        vectors: Vectors of the whole batch, over all ranks.
        rows: Queries of this rank.
    """

    micro_batches: tuple[tuple[MicroBatch, int], ...]
    kept_bytes: float
    vectors: float
    rows: float

    @property
    def count(self) -> int:
        """Micro-batches."""
        return sum(count for _, count in self.micro_batches)


@dataclass(frozen=True, slots=True)
class Summit:
    """What lies in memory at one moment, in bytes; `total` is the sum.

    Attributes:
        weights: As stored.
        optimizer: Moments of AdamW, and ZeRO's float32 copy of this rank's part.
        gradients: Those added up so far, and those just found or handed over.
        buffers: In which DeepSpeed reduces, and this rank's part of the reduced gradients.
        graphs: Kept graphs, or the one at work.
        working: Of the layer at work, or the loss.
        features: Visual tokens of a frozen tower, kept for the step.
        vectors: Of the whole batch with their gradients.
        overhead: Of the framework, as given.
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
        """Their sum."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Both summits of a step.

    Attributes:
        backward: Graphs and gradients at their largest.
        descent: The optimizer's step.
        kept: Micro-batches whose graph is kept; the others are encoded twice.
        graph: Bytes of the largest graph.
    """

    backward: Summit
    descent: Summit
    kept: int
    graph: float

    @property
    def peak(self) -> float:
        """Bytes of the higher one."""
        return max(self.backward.total, self.descent.total)


def kept_graphs(graphs: Sequence[tuple[float, int]], kept_bytes: float) -> int:
    """Micro-batches whose graph is kept, as `gradient_cache` decides.

    Args:
        graphs: Bytes of a micro-batch's graph, and how many in a row are alike.
        kept_bytes: One is kept while some of this is left and the largest so far still fits.
    """
    left, largest, kept = kept_bytes, 0.0, 0
    for graph, count in graphs:
        if left <= 0 or left < largest:
            break
        largest = max(largest, graph)
        # The first is kept unseen, and so is one that is larger than those before.
        more = count if graph <= 0 else min(count, 1 + max(0, int((left - largest) // graph)))
        left -= more * graph
        kept += more
        if more < count:
            break
    return kept


def estimate(shape: Architecture, how: Numerics, engine: Engine, step: Step, overhead: float = 0) -> Memory:
    """Memory of a rank at both summits of a step.

    Args:
        shape: The model.
        how: What is trained, in what precision.
        engine: Stage of ZeRO and ranks.
        step: What a rank encodes.
        overhead: Bytes of the framework, of collectives and of fragmentation.
    """
    count = count_parameters(shape, how)
    common = {
        "weights": weight_bytes(count, frozen_half=how.frozen_half),
        "optimizer": optimizer_bytes(count.trained, engine),
        "overhead": overhead,
    }
    graphs = [(graph_bytes(shape, batch, how), number) for batch, number in step.micro_batches]
    kept = kept_graphs(graphs, step.kept_bytes)
    features = sum(feature_bytes(shape, batch, how) * number for batch, number in step.micro_batches)
    vectors = _VECTOR_STATES * FLOAT * shape.language.width * step.vectors
    moments = [
        Summit(gradients=found, buffers=0, graphs=held, working=working, features=features, vectors=vectors, **common)
        for held, found, working in _moments(shape, how, step, graphs, FLOAT * count.trained)
    ]
    handed, buffers = descent_bytes(count.trained, engine)
    descent = Summit(gradients=handed, buffers=buffers, graphs=0, working=0, features=0, vectors=0, **common)
    return Memory(max(moments, key=lambda one: one.total), descent, kept, max(graph for graph, _ in graphs))


def _moments(
    shape: Architecture, how: Numerics, step: Step, graphs: Sequence[tuple[float, int]], gradients: float
) -> list[tuple[float, float, float]]:
    """Graphs, gradients and working memory, in bytes, at the moments that may be highest.

    They are a frozen tower's forward, the backward of the kept graphs, and that of one that is encoded again. While a
    backward goes on its graph shrinks and its gradients grow, so the larger of both counts; what earlier micro-batches
    gave lies beside it.
    """
    kept = kept_graphs(graphs, step.kept_bytes)
    held, left = 0.0, kept
    for graph, number in graphs:
        held, left = held + graph * min(number, left), left - min(number, left)
    largest = max(graph for graph, _ in graphs)
    working = max(working_bytes(shape, batch, how) for batch, _ in step.micro_batches)
    looking = max(tower_forward_bytes(shape.tower, batch, how) for batch, _ in step.micro_batches)
    moments = [(0.0, 0.0, looking), (held, max(0.0, gradients - held), max(working, _tile_bytes(step)))]
    if step.count > kept:
        earlier = gradients if step.count > 1 else 0.0
        moments.append((largest, earlier + max(0.0, gradients - largest), working))
    return moments


def _tile_bytes(step: Step) -> float:
    """Of the loss, which goes over the candidates in tiles, in bytes."""
    return _TILE_STATES * FLOAT * min(TILE, step.rows * step.vectors)
