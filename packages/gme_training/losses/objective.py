"""A global batch to one rank's gradients: share out, encode, gather, contrast.

Each rank has all vectors but computes its own rows of the loss alone. Knows ranks; neither engines nor schedules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gme_training.config import DistillConfig, LossConfig, PhaseConfig, TrainingConfig
from gme_training.data.batches import Batch
from gme_training.data.catalog import Catalog
from gme_training.losses.distillation import divergence
from gme_training.losses.gather import gather_rows
from gme_training.losses.gradient_cache import Gradients, cached_gradients
from gme_training.losses.info_nce import LossParts, contrast
from gme_training.losses.pairing import Pairing
from gme_training.losses.teachers import Teachers
from gme_training.model.contrastive import ContrastiveModel, InputMaker, Share, Slots, lay_out


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A global batch and what one rank encodes of it; of the rank's rows, what a teacher thinks, [r, C]."""

    batch: Batch
    slots: Slots
    share: Share
    teacher: Tensor | None = None


def prepare_step(
    inputs: InputMaker,
    catalog: Catalog,
    batch: Batch,
    objective: str,
    rank: int = 0,
    ranks: int = 1,
    teachers: Teachers | None = None,
) -> PreparedStep:
    """Share a batch out and prepare this rank's part. Pure, and safe to run in a thread."""
    slots = lay_out(catalog, batch, ranks, inputs.cost)
    share = inputs.prepare(slots, rank, objective, strength=batch.share.augment, seed=batch.seed)
    rows = np.arange(len(batch.rows))[rank::ranks]
    return PreparedStep(batch, slots, share, teachers.cosines(catalog, batch, rows) if teachers else None)


def batch_gradients(
    model: ContrastiveModel, step: PreparedStep, phase: PhaseConfig, config: TrainingConfig, rank: int = 0
) -> tuple[Gradients, Tensor]:
    """This rank's gradients of the trained parameters; their mean over the ranks is that of the batch's mean loss.

    Args:
        model: Its parameters that ask for gradients are the trained ones.
        step: The same batch on all ranks.
        phase: Objective, and whether the tower is frozen.
        config: Loss and cache.
        rank: This rank.

    Returns:
        The gradients, and [7] sums over this rank's rows: loss, correct, similarity of the positive, mean similarity
        of the negatives; the tokens it computed and those of its items; the norm of its gradients.
    """
    share = step.share
    micro_batches = share.micro_batches
    if not phase.vision_learning_rate:
        micro_batches = tuple(model.with_features(one) for one in micro_batches)
    distilled = Distilled(step.teacher, phase.distill) if step.teacher is not None and phase.distill else None
    loss = GlobalLoss(step.batch, step.slots, share.slots, rank, config.loss, model.scale(), distilled)
    _, gradients = cached_gradients(
        lambda one: model(one, phase.objective),
        micro_batches,
        loss,
        model.trained(),
        kept_bytes=config.cache.kept_mib * 2**20,
        frozen=list(model.parameters()),
    )
    parts = loss.parts
    tokens = parts.correct.new_tensor([share.tokens, share.real_tokens])
    norm = torch.nn.utils.get_total_norm([one for one in gradients if one is not None])
    sums = torch.stack([parts.loss.detach(), parts.correct, parts.positive, parts.negative])
    return gradients, torch.cat([sums, tokens, norm[None]])


@dataclass(frozen=True, slots=True)
class Distilled:
    """What a teacher thinks of one rank's rows, [r, C], and how much that counts."""

    teacher: Tensor
    config: DistillConfig


class GlobalLoss:
    """A function of one rank's vectors.

    Args:
        batch: The global batch.
        slots: Who encodes what.
        encoded: The slots of this rank's vectors, in their order.
        rank: This rank.
        config: The loss.
        scale: One divided by the temperature, a scalar.
        distilled: A teacher's view, if it is to be learned too.

    Attributes:
        parts: Sums over this rank's rows, after a call.
    """

    parts: LossParts

    def __init__(
        self,
        batch: Batch,
        slots: Slots,
        encoded: tuple[int, ...],
        rank: int,
        config: LossConfig,
        scale: Tensor,
        distilled: Distilled | None = None,
    ) -> None:
        self._slots, self._rank, self._config, self._scale, self._distilled = slots, rank, config, scale, distilled
        place = {slot: number for number, slot in enumerate(encoded)}
        self._own = torch.tensor([place[slot] for slot in slots.parts[rank]], dtype=torch.long)
        self._pairing = Pairing(
            torch.from_numpy(batch.targets),
            torch.from_numpy(batch.hidden),
            torch.from_numpy(batch.brought),
            len(batch.candidates),
            len(slots.parts),
        )

    def __call__(self, vectors: Tensor) -> Tensor:
        """[n, d] to this rank's part of the loss, scaled so that the mean over the ranks is that over the queries."""
        pairing = self._pairing.to(vectors.device)
        every = gather_rows(vectors[self._own.to(vectors.device)], self._slots.counts)
        ordered = every[self._slots.restore().to(vectors.device)]
        queries, candidates = torch.split(ordered, [len(pairing), pairing.candidates])
        rows = pairing.rows_of(self._rank)
        self.parts = contrast(queries, candidates, pairing, self._config, self._scale, rows)
        loss = self.parts.loss
        if self._distilled:
            excluded = pairing.against_candidates(rows, self._config.negatives).tile(len(rows), 0, len(candidates))
            teacher, config = self._distilled.teacher.to(vectors.device), self._distilled.config
            apart = divergence(queries[rows], candidates, teacher, excluded, self._scale, config.temperature)
            loss = loss + config.weight * apart
        return loss * pairing.ranks / len(pairing)
