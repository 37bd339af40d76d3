"""Stops a stage whose loss or gradient is not finite, whose gradients explode, or whose embeddings collapse.

All ranks check the same numbers, so all of them stop at the same step. Knows numbers and names; not models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gme_data.errors import FoundryError
from gme_training.config import GuardConfig


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The metrics of a step, summed over all ranks.

    Attributes:
        step: The step, counted from 0 in its phase.
        phase: The name of the phase.
        source: The source of the batch.
        examples: The names of some examples of the batch.
        loss: The sum of the losses over the batch.
        gradient: The sum over the ranks of the norms of their gradients, before any is applied.
        gap: How much more similar a query is to its positive than to its negatives, on average.
    """

    step: int
    phase: str
    source: str
    examples: tuple[str, ...]
    loss: float
    gradient: float
    gap: float

    def __str__(self) -> str:
        named = ", ".join(self.examples)
        return f"at step {self.step} of phase '{self.phase}', source '{self.source}' (examples {named}, ...)"


class Guards:
    """Checks the steps of a stage.

    Args:
        config: The limits.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._collapsed_steps = 0

    def check(self, metrics: StepMetrics) -> None:
        """Checks a step before its gradients are applied.

        Raises:
            FoundryError: The step is bad; names step, phase, source and examples.
        """
        lower = f"Lower text_learning_rate or vision_learning_rate of phases.{metrics.phase}."
        for name, value in (("loss", metrics.loss), ("gradient", metrics.gradient)):
            if not math.isfinite(value):
                raise FoundryError(f"The {name} is {value} {metrics}.", hint=lower, exit_code=1)
        if metrics.gradient > self._config.gradient_norm:
            raise FoundryError(
                f"The gradient has a norm of {metrics.gradient:.3g}, above guards.gradient_norm, {metrics}.",
                hint=lower,
                exit_code=1,
            )
        self._collapsed_steps = self._collapsed_steps + 1 if metrics.gap < self._config.gap else 0
        if self._collapsed_steps >= self._config.patience:
            raise FoundryError(
                f"The embeddings have collapsed: for {self._collapsed_steps} steps positives were no more similar than "
                f"negatives, {metrics}.",
                hint=f"{lower} Larger batches or hard negatives help too; guards.patience waits longer.",
                exit_code=1,
            )
