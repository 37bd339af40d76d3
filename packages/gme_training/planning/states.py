"""Weights, optimizer states and gradients of one rank: what there is whatever is encoded.

What DeepSpeed holds was read in its source and measured (`tests/gme_training/planning/test_stage_estimate.py`). Knows
counts of parameters; no activations.
"""

from __future__ import annotations

from dataclasses import dataclass

from gme_embedder.costs import Architecture
from gme_training.planning.activations import FLOAT, HALF, Numerics

BUCKET = 50_000_000
"""Gradients that ZeRO 1 and 2 reduce at once: ``reduce_bucket_size`` of `engine.engine_config`."""
_BUCKET_PLAIN = 500_000_000  # the same at stage 0, DeepSpeed's MEMORY_OPT_ALLREDUCE_SIZE
_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts of parameters.

    Attributes:
        text: Trained ones of the language part, its adapters if it has some.
        vision: Trained ones of the tower.
        frozen: The others, the token table among them.
        table: The token table, which is always frozen.
    """

    text: int
    vision: int
    frozen: int
    table: int

    @property
    def trained(self) -> int:
        """Those that get gradients."""
        return self.text + self.vision

    @property
    def total(self) -> int:
        """All of them."""
        return self.trained + self.frozen


def count_parameters(shape: Architecture, how: Numerics) -> Parameters:
    """Who is trained. The token table never is; the last norm is, also with adapters."""
    text = {
        "full": shape.language.parameters,
        "adapters": shape.language.adapters(how.rank) + shape.language.width,
        "frozen": 0,
    }[how.text]
    vision = shape.tower.parameters if how.vision else 0
    adapters = shape.language.adapters(how.rank) if how.text == "adapters" else 0
    return Parameters(text, vision, shape.parameters + adapters - text - vision, shape.language.table)


@dataclass(frozen=True, slots=True)
class Engine:
    """How states are spread.

    Attributes:
        zero: Stage of ZeRO, 0 to 2.
        ranks: Processes, each with one device.
        overlap: Reduce one bucket while the next fills, as the engine does on GPUs: both are allocated whole.
    """

    zero: int
    ranks: int
    overlap: bool = True


def weight_bytes(count: Parameters, *, frozen_half: bool) -> float:
    """Weights of a rank as stored, in bytes: trained ones and the table in float32; every rank has all of them."""
    return FLOAT * (count.trained + count.table) + (HALF if frozen_half else FLOAT) * (count.frozen - count.table)


def optimizer_bytes(trained: int, engine: Engine) -> float:
    """Optimizer states of a rank, in bytes.

    AdamW has two moments in float32 (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1). From stage 1 on each rank
    has its share, beside a float32 copy of that share of the weights, although they are in float32 already.
    """
    if engine.zero == 0:
        return _MOMENTS * FLOAT * trained
    return (_MOMENTS + 1) * FLOAT * trained / engine.ranks


def descent_bytes(trained: int, engine: Engine) -> tuple[float, float]:
    """Gradients and buffers of a rank while it hands them over to DeepSpeed, in bytes.

    Ours and those that autograd gives the engine exist whole side by side. At stage 0 they are reduced through a flat
    copy. From stage 1 on they are copied into buckets, and from there into this rank's share; the step then has that
    share twice and two temporaries of AdamW of its size, beside ours alone.
    """
    own = FLOAT * trained
    if engine.zero == 0:
        return 2 * own, FLOAT * min(trained, _BUCKET_PLAIN)
    buckets = FLOAT * (2 * BUCKET if engine.overlap else min(trained, BUCKET))
    return max((2 * own, buckets), (own, 4 * own / engine.ranks), key=sum)
