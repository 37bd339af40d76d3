"""``funnel.json``: what each step of synthesis saw, kept and rejected. One package writes it, others read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt

from gme_data.structured import read_json

FUNNEL = "funnel.json"


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """The counts of one step; `rejected` has them by reason."""

    step: str
    seen: NonNegativeInt
    kept: NonNegativeInt
    rejected: dict[str, NonNegativeInt]


@dataclass(frozen=True, slots=True)
class _Funnel:
    steps: tuple[FunnelStep, ...]


def read_funnel(path: Path) -> tuple[FunnelStep, ...]:
    """Returns the steps of a ``funnel.json``, in order.

    Raises:
        FileNotFoundError: There is no such file.
        StructureError: It is no funnel.
    """
    return read_json(path, _Funnel).steps
