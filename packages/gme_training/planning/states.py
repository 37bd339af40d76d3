"""The memory of a rank that does not depend on the batch: weights, optimizer states and gradients.

What DeepSpeed allocates was read in its source and measured (`tests/gme_training/planning/test_stage_estimate.py`).
Knows counts of parameters; no activations.
"""

from __future__ import annotations

from dataclasses import dataclass

from gme_embedder.costs import Architecture
from gme_training.planning.activations import FLOAT, HALF, Numerics

BUCKET = 50_000_000
"""Gradients that ZeRO 1 and 2 reduce at once: ``reduce_bucket_size`` of `engine.deepspeed_config`."""
_STAGE_0_BUCKET = 500_000_000
"""Gradients that are reduced at once at stage 0: DeepSpeed's MEMORY_OPT_ALLREDUCE_SIZE."""
_MOMENTS = 2
"""The number of states that AdamW has of each parameter."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """The numbers of parameters.

    Attributes:
        text: Trained parameters of the language part, which are its adapters if it has some.
        vision: Trained parameters of the tower.
        frozen: All other parameters, the token table among them.
        table: Parameters of the token table, which is always frozen.
    """

    text: int
    vision: int
    frozen: int
    table: int

    @property
    def trained(self) -> int:
        """The parameters that get gradients."""
        return self.text + self.vision

    @property
    def total(self) -> int:
        """All parameters."""
        return self.trained + self.frozen


def count_parameters(architecture: Architecture, numerics: Numerics) -> ParameterCounts:
    """Counts the trained and the frozen parameters of a phase."""
    language = architecture.language
    adapters = language.adapters(numerics.rank) if numerics.text == "adapters" else 0
    # With adapters the final norm is trained too, as `Trainer` does.
    text = {"full": language.parameters, "adapters": adapters + language.width, "frozen": 0}[numerics.text]
    vision = architecture.tower.parameters if numerics.vision else 0
    return ParameterCounts(text, vision, architecture.parameters + adapters - text - vision, language.table)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How DeepSpeed partitions states over the ranks.

    Attributes:
        zero_stage: The ZeRO stage, 0 to 2.
        ranks: The number of processes, each with one device.
        overlap: Reduces one bucket while the next fills, as the engine does on GPUs: both are allocated in full.
    """

    zero_stage: int
    ranks: int
    overlap: bool = True


def weight_bytes(count: ParameterCounts, *, frozen_half: bool) -> float:
    """Returns the bytes of a rank's weights; every rank has all of them.

    Trained weights and the token table are in float32, the others in bfloat16 if `frozen_half`.
    """
    return FLOAT * (count.trained + count.table) + (HALF if frozen_half else FLOAT) * (count.frozen - count.table)


def optimizer_bytes(trained: int, sharding: Sharding) -> float:
    """Returns the bytes of a rank's optimizer states.

    AdamW has two moments in float32 (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1). From stage 1 on each rank
    has its partition of them, beside a float32 copy of that partition of the weights, although these are in float32
    already.
    """
    if sharding.zero_stage == 0:
        return _MOMENTS * FLOAT * trained
    return (_MOMENTS + 1) * FLOAT * trained / sharding.ranks


def optimizer_step_bytes(trained: int, sharding: Sharding) -> tuple[float, float]:
    """Returns the bytes of a rank's gradients and of DeepSpeed's buffers, where their sum is largest in the step.

    Our gradients and those that autograd gives the engine exist in full side by side. At stage 0 they are reduced
    through a flat copy. From stage 1 on they are copied into buckets, and from there into this rank's partition; the
    step then has that partition twice and two temporaries of AdamW of its size, beside our gradients alone.
    """
    gradients = FLOAT * trained
    if sharding.zero_stage == 0:
        return 2 * gradients, FLOAT * min(trained, _STAGE_0_BUCKET)
    buckets = FLOAT * (2 * BUCKET if sharding.overlap else min(trained, BUCKET))
    return max((2 * gradients, buckets), (gradients, 4 * gradients / sharding.ranks), key=sum)
