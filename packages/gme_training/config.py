"""The configuration of a training stage and of mining; ``configs/tiny.yaml`` has the recipe of the tiny run.

Stages are measured in optimizer steps, never in time, so that a configuration means the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_embedder.config import BaseConfig, ModelConfig

Scope = Literal["own", "in_batch", "cross_rank"]
"""The candidates that count as negatives of a query; see `LossConfig.negatives`."""
TOWER_TYPES = ("I->I", "T->I", "I->T")
"""The task types that the tower objective can train: a picture on one side, and a text or a picture on the other."""


class SourceShare(Frozen):
    """One source of examples in the mixture of a phase. A batch holds examples of one source only."""

    RENAMED: ClassVar[Mapping[str, str]] = {"negatives": "num_negatives"}

    source: str
    """The name of the source, as the examples carry it, e.g. ``place-question``."""
    task_type: str | None = None
    """Takes only the examples of this type, e.g. ``T->I``; in a mixed batch the wrong modality is an easy negative."""
    weight: PositiveFloat = 1.0
    """The steps of this source are to those of the others as their weights are."""
    batch_size: PositiveInt = 64
    """The global batch size: queries in a batch, over all ranks."""
    grouped: float = Field(default=0.5, ge=0, le=1)
    """The share of a batch that is sampled in groups of one batch key, whose examples are hard negatives of each other.
    """
    group_size: int = Field(default=8, ge=2)
    """The number of examples in such a group, where the key has as many."""
    num_negatives: int = Field(default=0, ge=0)
    """The number of hard negatives of each example in a batch; they are sampled anew each time."""
    only_with_negatives: bool = False
    """Samples only examples that have hard negatives; mining gives them to a part of the examples."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """The strength of the random shift, scale and colour change of pictures; 0 leaves them unchanged."""


class DistillConfig(Frozen):
    """Distillation from frozen teachers, beside the contrastive loss. See `losses.distillation`."""

    weight: PositiveFloat = 1.0
    """The weight of the divergence from the teacher; the contrastive loss has weight 1."""
    temperature: PositiveFloat = 0.05
    """The teacher's temperature, which divides its cosines."""


class PhaseConfig(Frozen):
    """A phase of a stage, with its own mixture, learning rates, schedule and optimizer state."""

    name: str
    """The name of the phase in events and plots."""
    steps: PositiveInt
    """The number of optimizer steps."""
    mixture: tuple[SourceShare, ...] = Field(min_length=1)
    """The sources of examples and their shares."""
    objective: Literal["embedding", "tower"] = "embedding"
    """``tower`` contrasts the concatenated output tokens of the vision tower alone, without the language part: with
    those of other pictures, or with the mean embedding of the words of a text."""
    text_learning_rate: float = Field(default=5e-4, ge=0)
    """The peak learning rate of the language part; 0 freezes it."""
    vision_learning_rate: float = Field(default=3e-4, ge=0)
    """The peak learning rate of the vision tower; 0 freezes it."""
    distill: DistillConfig | None = None
    """Distils from MiniLM (texts) and EfficientNet-lite0 (pictures) beside the contrastive loss; None does not."""

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.objective == "tower" and self.text_learning_rate:
            raise ValueError("the tower objective does not reach the language part: set text_learning_rate to 0")
        if not self.text_learning_rate and not self.vision_learning_rate:
            raise ValueError("both learning rates are 0: nothing would be trained")
        names = [(share.source, share.task_type) for share in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError("a source stands twice in the mixture")
        # Teacher vectors are those of queries and positives; hard negatives have none.
        if self.distill and any(share.num_negatives for share in self.mixture):
            raise ValueError(
                "distill: teachers score the positives of a batch, not hard negatives: set num_negatives to 0"
            )
        return self


class LossConfig(Frozen):
    """InfoNCE and its variants. See `losses.info_nce` for the formulas."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "hardness": "hardness_strength",
        "margin": "false_negative_margin",
        "dimensions": "matryoshka_dims",
    }

    temperature: float = Field(default=0.03, ge=0.01)
    """Divides the cosines; 0.03 is the paper's value. The lower bound is where CLIP clips its temperature too."""
    temperature_learning_rate: float = Field(default=0.0, ge=0)
    """The peak learning rate of the logarithm of the temperature; 0 keeps the temperature fixed."""
    negatives: Scope = "cross_rank"
    """The negatives of a query: its ``own`` hard ones; also positives and hard negatives of the other queries of its
    rank (``in_batch``); or those of all ranks (``cross_rank``, the `gather_across_devices` of sentence-transformers).
    """
    symmetric: bool = False
    """Also contrasts each positive with all queries."""
    hardness_strength: float = Field(default=0.0, ge=0)
    """A negative of cosine s counts exp(hardness_strength * s) times; 0 gives all negatives the same weight."""
    false_negative_margin: float | None = Field(default=None, ge=0)
    """Leaves out negatives whose cosine exceeds that of the positive by more than this: they are probably unmarked
    positives. None leaves none out."""
    matryoshka_dims: tuple[PositiveInt, ...] = ()
    """The loss is the mean over the whole vector and its first k dimensions, for each of these k, e.g. ``[64, 128]``
    (Matryoshka)."""

    @model_validator(mode="after")
    def _has_negatives_both_ways(self) -> Self:
        # A positive has hard negatives of no kind: only other queries can be its negatives.
        if self.symmetric and self.negatives == "own":
            raise ValueError("symmetric: with negatives 'own' a positive has no other queries to be told from")
        return self


class GradientCacheConfig(Frozen):
    """The gradient cache: exact gradients of a batch of any size in bounded memory. See `losses.gradient_cache`."""

    RENAMED: ClassVar[Mapping[str, str]] = {"tokens": "micro_batch_tokens", "kept_mib": "retained_mib"}

    micro_batch_tokens: PositiveInt = 16384
    """The most tokens in a micro-batch, which is encoded in one forward."""
    retained_mib: int = Field(default=8192, ge=0)
    """Memory, in MiB, for the graphs of micro-batches that need no second forward; 0 encodes every micro-batch twice.
    """


class LoraConfig(Frozen):
    """Low-rank adapters on the linear layers of the language part; the vision tower is always trained in full."""

    # The paper's rank; it says nothing of alpha and dropout, which are ours.
    rank: PositiveInt = 8
    """The rank of the update."""
    alpha: PositiveInt = 16
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The dropout probability of the adapters' inputs."""


class OptimizerConfig(Frozen):
    """AdamW and its learning rate schedule."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "warmup": "warmup_ratio",
        "decay": "lr_scheduler_type",
        "clip": "max_grad_norm",
    }

    beta1: float = 0.9
    """The decay rate of the first moment."""
    # CLIP trains its vision transformers with 0.98 too (Radford et al. 2021, table 19).
    beta2: float = 0.98
    """The decay rate of the second moment."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """The decoupled weight decay of matrices; vectors, such as biases and norms, have none."""
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    """The share of a phase's steps in which the learning rate rises linearly."""
    lr_scheduler_type: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to zero after the warmup."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients of a larger L2 norm are clipped to it."""


class GuardConfig(Frozen):
    """When a stage stops before it applies bad gradients. A loss or gradient that is not finite always stops it."""

    gradient_norm: PositiveFloat = 1e6
    """The largest gradient norm of a batch, before clipping, that does not stop the stage."""
    gap: float = 1e-5
    """A batch counts as collapsed if its positives are on average not this much more similar than its negatives."""
    patience: PositiveInt = 100
    """The stage stops after this many collapsed batches in a row."""


class TrainingConfig(Frozen):
    """One stage of training: model, phases, loss, optimizer and engine."""

    RENAMED: ClassVar[Mapping[str, str]] = {"cache": "gradient_cache"}

    model: ModelConfig = ModelConfig()
    """The architecture of a fresh model; not used by a stage that continues from another."""
    base: BaseConfig | None = None
    """A pretrained model instead of a fresh one; not used by a stage that continues from another."""
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    """The phases, in the order in which they are trained."""
    seed: int = 17
    """The seed of weights, data order and augmentation."""
    loss: LossConfig = LossConfig()
    """InfoNCE, its negatives and its variants."""
    gradient_cache: GradientCacheConfig = GradientCacheConfig()
    """The size of micro-batches, and the memory for their graphs."""
    mask_same_group: tuple[str, ...] = ()
    """Sources in which candidates of one entity group and batch key are too alike to be negatives of each other."""
    lora: LoraConfig | None = None
    """Low-rank adapters instead of full fine-tuning of the language part."""
    start_share: float = Field(default=0.0, ge=0, lt=1)
    """The saved weights are start_share * initial + (1 - start_share) * trained, so that less of what the model knew
    is forgotten (WiSE-FT). See `model.weight_interpolation`. Not for a fresh model, which knew nothing."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its schedule."""
    prepare_threads: PositiveInt = 2
    """Threads of each rank that decode and tokenise batches ahead; up to twice as many batches wait."""
    guards: GuardConfig = GuardConfig()
    """When the stage stops with an error instead of going on."""
    calibration_items: int = Field(default=256, ge=0)
    """The number of items from which the final norm of a fresh model is calibrated; 0 leaves it as it is initialised.
    """
    ranks: PositiveInt = 2
    """The number of processes (the world size); each takes a part of every batch."""
    zero_stage: int = Field(default=0, ge=0, le=3)
    """What DeepSpeed partitions over the ranks: nothing (0), optimizer states (1), reduced gradients too (2)."""
    autocast: bool = True
    """Computes in bfloat16 on devices that support it; weights and optimizer states stay in float32."""
    frozen_weights: Literal["float32", "bfloat16"] = "float32"
    """The dtype of the matrices that no phase trains, except the token table, which opens the residual stream.
    ``bfloat16`` halves their memory with adapters or a frozen tower. The model is saved in float32 in any case."""
    activation_checkpointing: bool = False
    """Stores only the input of each layer and computes the layer again in the backward: a third more work for so much
    less memory that a larger micro-batch may fit."""
    checkpoint_every: PositiveInt = 40
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """The number of newest checkpoints that are kept."""

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> Self:
        if self.zero_stage == 3:
            raise ValueError(
                "zero_stage 3 gathers weights in every forward, so all ranks would need the same number of "
                "micro-batches with the same sizes of pictures, and would fetch each weight two or three times per "
                "micro-batch; use 2, with lora if memory is short"
            )
        if self.frozen_weights == "bfloat16" and not self.autocast:
            raise ValueError("frozen_weights bfloat16 needs autocast: what is trained stays in float32")
        return self

    @property
    def trained_parts(self) -> frozenset[str]:
        """The parts of the model that some phase trains: ``text``, ``vision``."""
        text = {"text"} if any(phase.text_learning_rate for phase in self.phases) else set()
        return frozenset(text | ({"vision"} if any(phase.vision_learning_rate for phase in self.phases) else set()))

    @property
    def steps(self) -> int:
        """The optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


class TeacherConfig(Frozen):
    """A second model whose scores rule out candidates that are too similar to a query to be its negatives.

    The filter is TopK-PercPos of NV-Retriever (Moreira et al. 2024, arXiv:2407.15831), on cosines.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"max_share": "relative_margin (it is 1 - max_share)"}

    model: str
    """Any model the embedder reads: a stronger one of ours, or a released GME; a folder, or a name on the Hugging Face
    hub. A step knows a folder by its name: after another model is put there, mine again into a fresh workspace."""
    revision: str | None = None
    """The branch, tag or commit on the hub; pin a commit for runs that are to be repeated."""
    relative_margin: float = Field(default=0.05, lt=1)
    """Leaves out candidates whose cosine with the query is above 1 - relative_margin times that of the positive, both
    by the teacher: they are probably unmarked positives. As in sentence-transformers' `mine_hard_negatives` with a
    cross-encoder."""


class MiningConfig(Frozen):
    """Hard negatives that the model of stage 1 finds.

    The fields that sentence-transformers' `mine_hard_negatives` has too bear its names and signs. Two things differ: a
    query's positives and their look-alikes are ranked among the `range_max` candidates, and `range_min` candidates are
    skipped before the margins apply, not after. Of what is left the nearest are taken (``sampling_strategy="top"``).
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "top_k": "range_max",
        "skip": "range_min",
        "margin": "absolute_margin (with the opposite sign)",
        "negatives": "num_negatives",
    }

    sources: tuple[str, ...] = ("place-question", "flag-question", "pictograph")
    """Sources whose examples get negatives; the examples of the others are written unchanged."""
    queries: int = Field(default=2000, ge=0)
    """The number of examples of each source that get negatives, sampled at random; 0 means all of them. More than
    stage 2 samples is wasted."""
    seed: int = 17
    """The seed of that sample."""
    range_max: PositiveInt = 30
    """The number of nearest candidates of a query that are considered."""
    range_min: int = Field(default=0, ge=0)
    """The number of nearest candidates that are skipped, as the likeliest to be unmarked positives."""
    absolute_margin: float | None = None
    """Leaves out candidates whose cosine with the query is above that of the positive minus absolute_margin: they are
    probably unmarked positives; e.g. ``0`` or ``0.05``. None leaves none out."""
    teacher: TeacherConfig | None = None
    """A second model that scores the candidates too; None filters by the scores of the model of stage 1 alone."""
    num_negatives: PositiveInt = 4
    """The most negatives of an example."""
    mask_same_group: tuple[str, ...] = ("flag-question",)
    """As in `TrainingConfig`."""
    batch_tokens: PositiveInt = 8192
    """Tokens that are encoded in one forward."""
    shard: PositiveInt = 1024
    """Items that are encoded between two writes to disk: a kill costs at most the vectors of so many."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.range_min >= self.range_max:
            raise ValueError(f"range_min: {self.range_min} of the {self.range_max} candidates of range_max leave none")
        return self


def require_sources(config: TrainingConfig, available: set[tuple[str, str]]) -> None:
    """Checks that each source of each mixture has examples.

    Args:
        config: The stage.
        available: The pairs (source, task type) that the training set has.

    Raises:
        FoundryError: A source has none; names phase and source, and the sources there are.
    """
    names = sorted({f"{source} ({task_type})" for source, task_type in available})
    for phase in config.phases:
        for share in phase.mixture:
            task_types = {
                task_type
                for source, task_type in available
                if share.source == source and share.task_type in (None, task_type)
            }
            if phase.objective == "tower" and task_types - set(TOWER_TYPES):
                raise FoundryError(
                    f"phases.{phase.name}.mixture: '{share.source}' has examples of type "
                    f"{', '.join(sorted(task_types))}; the tower objective takes {', '.join(TOWER_TYPES)}.",
                    hint="Give the share a task_type, or leave it to a phase with the objective 'embedding'.",
                )
            if not task_types:
                missing = f"'{share.source}'" + (f" and task type '{share.task_type}'" if share.task_type else "")
                raise FoundryError(
                    f"phases.{phase.name}.mixture: no examples of source {missing}.",
                    hint=f"The training set has: {', '.join(names)}.",
                )
