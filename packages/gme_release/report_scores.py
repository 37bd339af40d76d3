"""``scores.json`` as the report writes it: the fields that gate, records and releases read. Knows no metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gme_data.errors import FoundryError
from gme_data.paths import FileName
from gme_data.structured import StructureError, read_json

_AGAIN = "Run `gme report` again."


class _Open(BaseModel):
    """Fields of the report that nobody here reads stay as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")


class _Task(_Open):
    name: Annotated[FileName, StringConstraints(max_length=200)]
    """Also names the file of its queries' values."""
    task_type: str
    metric: str
    value: float
    interval: tuple[float, float]
    scores: dict[str, float] = Field(default_factory=dict)
    baselines: dict[str, float] = Field(default_factory=dict)
    queries: int
    pool: int


class _Scores(_Open):
    overall: float
    types: dict[str, float]
    tasks: tuple[_Task, ...]


def read_report_scores(path: Path) -> dict[str, Any]:
    """The scores of a report, with every field that is read further on of its type.

    Raises:
        FoundryError: They are missing, or not what a report writes.
    """
    try:
        return read_json(path, _Scores, hint=_AGAIN).model_dump(mode="json")
    except FileNotFoundError as error:
        raise FoundryError(f"Scores can't be read: {path} is missing.", hint=_AGAIN) from error
    except StructureError as error:
        raise FoundryError(f"Scores can't be read: {error}", hint=_AGAIN) from error
