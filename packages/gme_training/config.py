"""Configuration of a training stage and of mining. The recipe of the tiny run is ``configs/tiny.yaml``.

Steps are counted, never timed, so that a run means the same on every machine.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_embedder.config import BaseConfig, ModelConfig

Scope = Literal["own", "in_batch", "cross_rank"]
"""Whose candidates are negatives of a query; see `LossConfig.negatives`."""
TOWER_TYPES = ("I->I", "T->I", "I->T")


class SourceShare(Frozen):
    """How one source of examples takes part in a phase; a batch holds one source."""

    source: str
    """Name of the source as the examples carry it, e.g. ``place-question``."""
    task_type: str | None = None
    """Only the examples of this type, e.g. ``T->I``; in a mixed batch the wrong modality is an easy negative."""
    weight: PositiveFloat = 1.0
    """Steps of this source in proportion to those of the others."""
    batch_size: PositiveInt = 64
    """Queries in a batch, over all ranks."""
    grouped: float = Field(default=0.5, ge=0, le=1)
    """Share of a batch drawn as groups of examples with one batch key: hard negatives for each other."""
    group_size: int = Field(default=8, ge=2)
    """Examples in such a group, where the key has as many."""
    negatives: int = Field(default=0, ge=0)
    """Hard negatives taken of each example, drawn anew each time."""
    only_with_negatives: bool = False
    """Draw only examples that have hard negatives; mining gives them to a part."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """Strength of the random shift, scale and colour change of pictures; 0 leaves them alone."""


class DistillConfig(Frozen):
    """Frozen teachers: the student's view of the candidates of a batch is drawn to theirs. See `distillation`."""

    weight: PositiveFloat = 1.0
    """Of the divergence from the teacher beside the contrastive loss."""
    temperature: PositiveFloat = 0.05
    """Divides the teacher's cosines."""


class PhaseConfig(Frozen):
    """A stretch of training with one mixture, its own learning rates, schedule and optimizer state."""

    name: str
    """Shown in events and plots."""
    steps: PositiveInt
    """Optimizer steps."""
    mixture: tuple[SourceShare, ...] = Field(min_length=1)
    """The sources and their shares."""
    objective: Literal["embedding", "tower"] = "embedding"
    """``tower`` contrasts the concatenated output tokens of the vision tower alone, without the language part: with
    those of other pictures, or with the mean embedding of the words of a text."""
    text_learning_rate: float = Field(default=5e-4, ge=0)
    """Peak rate of the language part; 0 freezes it."""
    vision_learning_rate: float = Field(default=3e-4, ge=0)
    """Peak rate of the vision tower; 0 freezes it."""
    distill: DistillConfig | None = None
    """Learn from MiniLM (texts) and EfficientNet-lite0 (pictures) beside the pairs. None asks no teacher."""

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.objective == "tower" and self.text_learning_rate:
            raise ValueError("the tower objective does not reach the language part: set text_learning_rate to 0")
        if not self.text_learning_rate and not self.vision_learning_rate:
            raise ValueError("both learning rates are 0: nothing would be trained")
        names = [(share.source, share.task_type) for share in self.mixture]
        if len(set(names)) < len(names):
            raise ValueError("a source stands twice in the mixture")
        if self.distill and any(share.negatives for share in self.mixture):
            raise ValueError("distill: teachers judge the positives of a batch, not hard negatives: set negatives to 0")
        return self


class LossConfig(Frozen):
    """InfoNCE and what may be added to it. See `loss.info_nce` for the formulas."""

    temperature: float = Field(default=0.03, ge=0.01)
    """Divides the cosines; the paper's value. Not below 0.01, where CLIP clips its own too."""
    temperature_learning_rate: float = Field(default=0.0, ge=0)
    """Peak rate of the logarithm of the temperature, which is learned if this is above 0."""
    negatives: Scope = "cross_rank"
    """Negatives of a query: its ``own`` hard ones; also positives and hard negatives of the other queries of its rank
    (``in_batch``); or those of all ranks (``cross_rank``)."""
    symmetric: bool = False
    """Also contrast each positive with all queries."""
    hardness: float = Field(default=0.0, ge=0)
    """How much more the more similar negatives count; 0 counts all alike."""
    margin: float | None = Field(default=None, ge=0)
    """Negatives more similar than the positive by this much are taken for unmarked positives and left out."""
    dimensions: tuple[PositiveInt, ...] = ()
    """The first so many dimensions of a vector are trained to do alone (Matryoshka), e.g. ``[64, 128]``."""

    @model_validator(mode="after")
    def _has_negatives_both_ways(self) -> Self:
        if self.symmetric and self.negatives == "own":
            raise ValueError("symmetric: with negatives 'own' a positive has no other queries to be told from")
        return self


class CacheConfig(Frozen):
    """The gradient cache: how a batch of any size is trained on within bounded memory, exactly."""

    tokens: PositiveInt = 16384
    """Tokens of a micro-batch, which is encoded at once."""
    kept_mib: int = Field(default=8192, ge=0)
    """Memory for the graphs of micro-batches that are not encoded a second time; 0 encodes all of them twice."""


class LoraConfig(Frozen):
    """Low-rank adapters on the linear layers of the language part; the vision tower is always trained whole."""

    rank: PositiveInt = 8
    """Rank of the update."""
    alpha: PositiveInt = 16
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is dropped."""


class OptimizerConfig(Frozen):
    """AdamW and its schedule."""

    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.98
    """Decay of the second moment."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors have none."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of a phase in which the rate rises."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the rate falls to zero afterwards."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm."""


class GuardConfig(Frozen):
    """When a stage stops before it applies bad gradients. A loss or gradient that is no number always stops it."""

    gradient_norm: PositiveFloat = 1e6
    """Largest norm of a batch's gradients before clipping."""
    gap: float = 1e-5
    """Positives that are not this much more similar than negatives count as collapsed, on average over a batch."""
    patience: PositiveInt = 100
    """So many collapsed batches in a row stop the stage."""


class TrainingConfig(Frozen):
    """One stage of training: model, phases, loss, engine."""

    model: ModelConfig = ModelConfig()
    """Architecture of the fresh model; not used by a stage that goes on from another."""
    base: BaseConfig | None = None
    """A pretrained model instead of a fresh one; not used by a stage that goes on from another."""
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    """Trained one after the other."""
    seed: int = 17
    """Of weights, data order and augmentation."""
    loss: LossConfig = LossConfig()
    """InfoNCE, its negatives and variants."""
    cache: CacheConfig = CacheConfig()
    """Micro-batches and how many of their graphs are kept."""
    mask_same_group: tuple[str, ...] = ()
    """Sources in which candidates of one entity group and batch key are too alike to be negatives of each other."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning of the language part."""
    start_share: float = Field(default=0.0, ge=0, lt=1)
    """How far the saved weights lie from the trained ones on the way back to those that the stage started from: what
    a model knew before is forgotten less. See `blend`. Not for a fresh model, which knew nothing."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and schedule."""
    prepare_threads: PositiveInt = 2
    """Threads of each rank that decode and tokenise the next batches; up to twice as many batches wait."""
    guards: GuardConfig = GuardConfig()
    """When to stop rather than go on."""
    calibration_items: int = Field(default=256, ge=0)
    """Items from which the final norm of a fresh model gets its first scale; 0 leaves it alone."""
    ranks: PositiveInt = 2
    """Processes; each takes a part of every batch."""
    zero_stage: int = Field(default=0, ge=0, le=3)
    """What DeepSpeed partitions over the ranks: nothing, optimizer states (1), reduced gradients too (2)."""
    autocast: bool = True
    """Compute in bfloat16, on devices that have it; weights and optimizer stay in float32."""
    frozen_weights: Literal["float32", "bfloat16"] = "float32"
    """What the matrices that no phase trains are kept in, but for the token table, which opens the residual stream:
    with adapters or a frozen tower half the memory. The saved model is in float32."""
    activation_checkpointing: bool = False
    """Keep of each layer its input alone and compute the layer again on the way back: a third more work, and so much
    less memory for a micro-batch that a larger one may fit."""
    checkpoint_every: PositiveInt = 40
    """Steps between checkpoints for resuming."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of them are kept."""

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
        """Parts that some phase trains: ``text``, ``vision``."""
        text = {"text"} if any(phase.text_learning_rate for phase in self.phases) else set()
        return frozenset(text | ({"vision"} if any(phase.vision_learning_rate for phase in self.phases) else set()))

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


class TeacherConfig(Frozen):
    """A second model that says which candidates are too near a query to be negatives of it.

    The filter is TopK-PercPos of NV-Retriever (Moreira et al. 2024, arXiv:2407.15831), on cosines.
    """

    model: str
    """Any model the embedder reads: a stronger one of ours, or a released GME; a folder, or a name on the Hugging Face
    hub. A step knows a folder by its name: after another model is put there, mine again into a fresh workspace."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin a commit for runs that are to be repeated."""
    max_share: PositiveFloat = 0.95
    """A candidate whose similarity to the query is above this share of its positive's, both by the teacher, is taken
    for an unmarked positive and left out."""


class MiningConfig(Frozen):
    """Hard negatives found by the model of stage 1."""

    sources: tuple[str, ...] = ("place-question", "flag-question", "pictograph")
    """Sources that get negatives; the others pass unchanged."""
    queries: int = Field(default=2000, ge=0)
    """Examples of each source that get negatives, drawn at random; 0 means all. More than stage 2 draws is wasted."""
    seed: int = 17
    """Of that draw."""
    top_k: PositiveInt = 30
    """Nearest candidates looked at per query."""
    skip: int = Field(default=0, ge=0)
    """Nearest candidates left out, as the likeliest to be unmarked positives."""
    margin: float | None = None
    """Candidates more similar to the query than its positive is, plus this, are taken for unmarked positives and left
    out; e.g. ``0`` or ``-0.05``. None leaves none out."""
    teacher: TeacherConfig | None = None
    """A second opinion on the candidates. None asks nobody."""
    negatives: PositiveInt = 4
    """Kept per example."""
    mask_same_group: tuple[str, ...] = ("flag-question",)
    """As in `TrainingConfig`."""
    batch_tokens: PositiveInt = 8192
    """Tokens encoded at once."""
    shard: PositiveInt = 1024
    """Items encoded between two writes to disk: what a kill can cost."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.skip >= self.top_k:
            raise ValueError(f"skip: {self.skip} of the {self.top_k} candidates of top_k leave none")
        return self


def require_sources(config: TrainingConfig, known: set[tuple[str, str]]) -> None:
    """Check that each source of each mixture has examples.

    Args:
        config: A stage.
        known: (source, task type) of the examples there are.

    Raises:
        FoundryError: Names phase and source, and the sources there are.
    """
    names = sorted({f"{source} ({task_type})" for source, task_type in known})
    for phase in config.phases:
        for share in phase.mixture:
            kinds = {kind for source, kind in known if share.source == source and share.task_type in (None, kind)}
            if phase.objective == "tower" and kinds - set(TOWER_TYPES):
                raise FoundryError(
                    f"phases.{phase.name}.mixture: '{share.source}' has examples of type {', '.join(sorted(kinds))}; "
                    f"the tower objective takes {', '.join(TOWER_TYPES)}.",
                    hint="Give the share a task_type, or leave it to a phase with the objective 'embedding'.",
                )
            if not kinds:
                wanted = f"'{share.source}'" + (f" and task type '{share.task_type}'" if share.task_type else "")
                raise FoundryError(
                    f"phases.{phase.name}.mixture: no examples of source {wanted}.",
                    hint=f"The training set has: {', '.join(names)}.",
                )
