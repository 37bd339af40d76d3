"""The form of a decision: conditions, how each came out, and whether all of them held. Decides nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One condition and how it came out."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision about exactly one model.

    Attributes:
        model_digest: Content digest of the model that was judged.
        policy_digest: sha256 of the policy it was judged by.
        checks: Every condition, also those that passed.
        champion: Content digest of the model it was compared with; empty if there was none.
    """

    model_digest: str
    policy_digest: str
    checks: tuple[Check, ...]
    champion: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passed; a verdict without checks has not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why the gate is closed, one line a failed check; empty if it is open."""
        return [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON value, `passed` and `reasons` spelled out; who reads it works them out again."""
        return {**asdict(self), "passed": self.passed, "reasons": self.reasons}
