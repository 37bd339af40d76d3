"""Items and task types, which all other packages use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args


class Modality(StrEnum):
    """What an item is made of. A visual document (VD) is an image whose role is a page."""

    TEXT = "T"
    IMAGE = "I"
    FUSED = "IT"


TaskType = Literal["T->T", "I->I", "T->I", "T->VD", "I->T", "T->IT", "IT->T", "IT->I", "IT->IT"]
"""The task types, those of UMRB in the order of the paper's table."""
TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be embedded: a text, a picture, or both.

    Attributes:
        text: The text, or None.
        image: The image id (sha256 hex of the encoded bytes), or None.

    Raises:
        ValueError: Neither text nor image is given.
    """

    text: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        if self.text is None and self.image is None:
            raise ValueError("an item needs a text, an image, or both")

    @property
    def modality(self) -> Modality:
        """T, I or IT."""
        if self.image is None:
            return Modality.TEXT
        return Modality.IMAGE if self.text is None else Modality.FUSED


def modalities_of(task_type: str) -> tuple[str, str]:
    """Returns the modalities of query and document of a task type: ``T``, ``I`` or ``IT``; a visual page is ``I``."""
    query, _, document = task_type.partition("->")
    return query.replace("VD", "I"), document.replace("VD", "I")


def pages_of(task_type: str) -> tuple[bool, bool]:
    """Tells whether queries and documents of a task type are pages, which are shown larger than other pictures."""
    query, _, document = task_type.partition("->")
    return "VD" in query, "VD" in document
