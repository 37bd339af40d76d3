"""The verdict of the gate as data: each condition, whether it held, and why. Decides nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One condition and whether it held."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision about exactly one model.

    Attributes:
        model_digest: Content digest of the model.
        policy_digest: sha256 of the conditions.
        checks: Every condition, those that held included.
        champion: Content digest of the model that it was compared with; empty if there was none.
    """

    model_digest: str
    policy_digest: str
    checks: tuple[Check, ...]
    champion: str = ""

    @property
    def passed(self) -> bool:
        """Returns whether every check passed; a verdict without checks has not passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Returns why the gate is closed, one line for each failed check; empty if it is open."""
        return [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict as a JSON value, with `passed` and `reasons` added for other programs."""
        return {**asdict(self), "passed": self.passed, "reasons": self.reasons}
