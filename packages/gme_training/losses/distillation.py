"""Distillation: the student learns how a teacher ranks the candidates of a batch, some of which are nearly right.

    KL(softmax(t / tau) || softmax(scale * s))        t, s: cosines by the teacher and the student

(Hinton et al. 2015, arXiv:1503.02531, over the candidates of a query as in TAS-B, Hofstaetter et al. 2021.) All pairs
of the rows and the candidates are in memory. Knows vectors; neither teachers nor items.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distillation_loss(
    queries: Tensor, candidates: Tensor, teacher: Tensor, excluded: Tensor, scale: Tensor, temperature: float
) -> Tensor:
    """Returns the sum of the divergences over the queries, a scalar.

    Args:
        queries: [r, d], L2-normalised.
        candidates: [C, d], L2-normalised.
        teacher: Cosines by the teacher, [r, C].
        excluded: Candidates that are left out, bool [r, C].
        scale: One divided by the student's temperature, a scalar.
        temperature: The teacher's temperature, tau.
    """
    # Not -inf: kl_div subtracts the log probabilities, and -inf minus -inf is nan.
    low = torch.finfo(queries.dtype).min
    student_logits = (queries @ candidates.T * scale).masked_fill(excluded, low)
    teacher_logits = (teacher.to(queries) / temperature).masked_fill(excluded, low)
    return functional.kl_div(
        student_logits.log_softmax(1), teacher_logits.log_softmax(1), reduction="sum", log_target=True
    )
