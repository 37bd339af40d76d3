"""From a global batch to the gradients of one rank: assign items to ranks, encode, gather, compute the loss.

Each rank has all vectors but computes only its own rows of the loss. Knows ranks; neither engines nor schedules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gme_training.config import DistillConfig, LossConfig, PhaseConfig, TrainingConfig
from gme_training.data.batches import Batch
from gme_training.data.catalog import Catalog
from gme_training.losses.distillation import distillation_loss
from gme_training.losses.gather import gather_rows
from gme_training.losses.gradient_cache import Gradients, cached_gradients
from gme_training.losses.info_nce import LossSums, contrastive_loss
from gme_training.losses.pairing import Pairing
from gme_training.losses.teachers import TeacherVectors
from gme_training.model.contrastive import ContrastiveModel, InputMaker, RankAssignment, RankBatch, assign_items


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A global batch, ready to be encoded by one rank.

    Attributes:
        batch: The global batch.
        assignment: Which rank encodes which items.
        rank_batch: What this rank encodes.
        teacher_cosines: A teacher's cosines of this rank's queries with all candidates, [r, C].
    """

    batch: Batch
    assignment: RankAssignment
    rank_batch: RankBatch
    teacher_cosines: Tensor | None = None


def prepare_step(
    inputs: InputMaker,
    catalog: Catalog,
    batch: Batch,
    objective: str,
    rank: int = 0,
    ranks: int = 1,
    teachers: TeacherVectors | None = None,
) -> PreparedStep:
    """Assigns the items of a batch to the ranks and prepares those of this rank. Pure, and safe to run in a thread."""
    assignment = assign_items(catalog, batch, ranks, inputs.cost)
    rank_batch = inputs.prepare(assignment, rank, objective, strength=batch.share.augment, seed=batch.seed)
    rows = np.arange(len(batch.rows))[rank::ranks]
    return PreparedStep(batch, assignment, rank_batch, teachers.cosines(catalog, batch, rows) if teachers else None)


def batch_gradients(
    model: ContrastiveModel, step: PreparedStep, phase: PhaseConfig, config: TrainingConfig, rank: int = 0
) -> tuple[Gradients, Tensor]:
    """Computes this rank's gradients; their mean over the ranks is the gradient of the batch's mean loss.

    Args:
        model: The gradients are those of its parameters that require gradients.
        step: The same global batch on all ranks.
        phase: Objective, and whether the tower is frozen.
        config: Loss and gradient cache.
        rank: This rank.

    Returns:
        The gradients, and [7] sums over this rank's rows: loss, correct, similarity of the positive, mean similarity
        of the negatives; the tokens it computed and those of its items; the norm of its gradients.
    """
    rank_batch = step.rank_batch
    micro_batches = rank_batch.micro_batches
    if not phase.vision_learning_rate:
        # A frozen tower runs once a step, outside of what the gradient cache may encode twice.
        micro_batches = tuple(model.with_features(micro_batch) for micro_batch in micro_batches)
    target = None
    if step.teacher_cosines is not None and phase.distill:
        target = TeacherTarget(step.teacher_cosines, phase.distill)
    loss = GlobalLoss(step.batch, step.assignment, rank_batch.rows, rank, config.loss, model.scale(), target)
    _, gradients = cached_gradients(
        lambda micro_batch: model(micro_batch, phase.objective),
        micro_batches,
        loss,
        model.trained(),
        retained_bytes=config.gradient_cache.retained_mib * 2**20,
        frozen=list(model.parameters()),
    )
    sums = loss.sums
    tokens = sums.correct.new_tensor([rank_batch.tokens, rank_batch.real_tokens])
    norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    metrics = torch.stack([sums.loss.detach(), sums.correct, sums.positive, sums.negative])
    return gradients, torch.cat([metrics, tokens, norm[None]])


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """A teacher's cosines of one rank's queries with all candidates, [r, C], and how they are learned."""

    cosines: Tensor
    config: DistillConfig


class GlobalLoss:
    """The loss of one rank's rows of a global batch, as a function of the vectors that the rank encoded.

    Args:
        batch: The global batch.
        assignment: Which rank encodes which items.
        encoded_rows: The rows of this rank's vectors, in their order.
        rank: This rank.
        config: The loss.
        scale: One divided by the temperature, a scalar.
        target: What a teacher says, if it is to be learned too.

    Attributes:
        sums: Sums over this rank's rows, after a call.
    """

    sums: LossSums

    def __init__(
        self,
        batch: Batch,
        assignment: RankAssignment,
        encoded_rows: tuple[int, ...],
        rank: int,
        config: LossConfig,
        scale: Tensor,
        target: TeacherTarget | None = None,
    ) -> None:
        self._assignment, self._rank, self._config, self._scale, self._target = assignment, rank, config, scale, target
        position = {row: number for number, row in enumerate(encoded_rows)}
        # Micro-batches are sorted by length; other ranks know only the order of the assignment.
        self._to_assigned = torch.tensor([position[row] for row in assignment.rows_per_rank[rank]], dtype=torch.long)
        self._pairing = Pairing(
            torch.from_numpy(batch.targets),
            torch.from_numpy(batch.false_negatives),
            torch.from_numpy(batch.own_candidates),
            len(batch.candidates),
            len(assignment.rows_per_rank),
        )

    def __call__(self, vectors: Tensor) -> Tensor:
        """Maps this rank's vectors, [n, d], to its part of the loss.

        It is scaled so that the mean over the ranks, which DeepSpeed takes of gradients, is the mean over the queries.
        """
        pairing = self._pairing.to(vectors.device)
        gathered = gather_rows(vectors[self._to_assigned.to(vectors.device)], self._assignment.counts)
        ordered = gathered[self._assignment.restore().to(vectors.device)]
        queries, candidates = torch.split(ordered, [len(pairing), pairing.candidates])
        rows = pairing.rows_of(self._rank)
        self.sums = contrastive_loss(queries, candidates, pairing, self._config, self._scale, rows)
        loss = self.sums.loss
        if self._target:
            excluded = pairing.against_candidates(rows, self._config.negatives).tile(len(rows), 0, len(candidates))
            cosines, config = self._target.cosines.to(vectors.device), self._target.config
            divergence = distillation_loss(
                queries[rows], candidates, cosines, excluded, self._scale, config.temperature
            )
            loss = loss + config.weight * divergence
        return loss * pairing.ranks / len(pairing)
