"""What must not go on unnoticed: a loss or gradient that is no number, exploding gradients, embeddings that collapse.

All ranks see the same numbers, so all of them stop at the same step. Knows numbers and names; not models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gme_data.errors import FoundryError
from gme_training.config import GuardConfig


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step as all ranks see it.

    Attributes:
        step: Counted from 0 in its phase.
        phase: Its name.
        source: Of the batch.
        examples: Some of the batch, by name.
        loss: Sum over the batch.
        gradient: Sum over the ranks of the norms of their gradients, before any is applied.
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
    """Watches the steps of a stage.

    Args:
        config: Limits.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._flat = 0

    def check(self, facts: StepFacts) -> None:
        """Look at a step before its gradients are applied.

        Raises:
            FoundryError: Something is wrong; names step, phase, source and examples.
        """
        lower = f"Lower text_learning_rate or vision_learning_rate of phases.{facts.phase}."
        for name, value in (("loss", facts.loss), ("gradient", facts.gradient)):
            if not math.isfinite(value):
                raise FoundryError(f"The {name} is {value} {facts}.", hint=lower, exit_code=1)
        if facts.gradient > self._config.gradient_norm:
            raise FoundryError(
                f"The gradient has a norm of {facts.gradient:.3g}, above guards.gradient_norm, {facts}.",
                hint=lower,
                exit_code=1,
            )
        self._flat = self._flat + 1 if facts.gap < self._config.gap else 0
        if self._flat >= self._config.patience:
            raise FoundryError(
                f"The embeddings have collapsed: for {self._flat} steps positives were no more similar than negatives, "
                f"{facts}.",
                hint=f"{lower} Larger batches or hard negatives help too; guards.patience waits longer.",
                exit_code=1,
            )
