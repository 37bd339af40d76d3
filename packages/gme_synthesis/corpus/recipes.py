"""Recipes: how a question, its passage and their pictures become an example of one source, as data.

A corpus whose benchmark has instructions of its own brings recipes of its own; `RECIPES` are those of any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gme_data.items import TaskType

TextPart = Literal["question", "fused", "passage", "entity", "wish", ""]
"""The question by name; the question without it; the passage; the name; "Another picture of this plant."; no text."""
PicturePart = Literal["sight", "other-sight", "other", "beside", "page", ""]
"""A picture of the entity; the next of its pictures; the same, the one beside the passage included; the one beside the
passage; the page that shows the passage; no picture."""
Side = tuple[TextPart, PicturePart]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Examples of one source. Where a part of a side is missing, none is made.

    Attributes:
        source: What the examples are called in mixtures and records.
        task_type: One of the nine.
        instruction: Of their queries.
        query: What is asked.
        positive: What answers it.
        pictured: Made of what passed the picture filter, once for each picture; else of all that can be asked by name.
    """

    source: str
    task_type: TaskType
    instruction: str
    query: Side
    positive: Side
    pictured: bool = True


RECIPES = (
    Recipe(
        "question",
        "T->T",
        "Retrieve a passage that answers the question.",
        ("question", ""),
        ("passage", ""),
        pictured=False,
    ),
    Recipe(
        "illustrated",
        "T->IT",
        "Find an illustrated passage that answers the question.",
        ("question", ""),
        ("passage", "beside"),
        pictured=False,
    ),
    Recipe(
        "page",
        "T->VD",
        "Find a screenshot of a page that answers the question.",
        ("question", ""),
        ("", "page"),
        pictured=False,
    ),
    Recipe(
        "picture-question",
        "IT->T",
        "Retrieve a passage that answers the question about the image.",
        ("fused", "sight"),
        ("passage", ""),
    ),
    Recipe("look-up", "I->T", "Retrieve a passage about what the image shows.", ("", "sight"), ("passage", "")),
    Recipe("name", "T->I", "Find a picture of what is named.", ("entity", ""), ("", "sight")),
    Recipe(
        "picture-question-illustrated",
        "IT->IT",
        "Retrieve an illustrated passage that answers the question about the image.",
        ("fused", "sight"),
        ("passage", "other"),
    ),
    Recipe("look", "I->I", "Find another picture of the same thing.", ("", "sight"), ("", "other")),
    Recipe(
        "another-picture",
        "IT->I",
        "Find the picture that the text asks for, of what the image shows.",
        ("wish", "sight"),
        ("", "other"),
    ),
)
"""Instructions are worded as GME's benchmark words such tasks."""
