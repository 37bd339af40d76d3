"""Recipes: how a question, its passage and their pictures become an example of one source, as data.

A corpus whose benchmark has its own instructions supplies its own recipes; `RECIPES` are those of any other corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gme_data.items import TaskType

TextPart = Literal["question", "fused", "passage", "entity", "request", ""]
"""The text of a side: the question by name, the question without the name, the passage, the name, a request such as
"Another picture of this plant.", or no text."""
PicturePart = Literal["entity-image", "other-entity-image", "other-image", "illustration", "page", ""]
"""The picture of a side: an image of the entity, the next of its images, the next of its images and the illustration,
the illustration beside the passage, the page that shows the passage, or no picture."""
Side = tuple[TextPart, PicturePart]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the examples of one source are made. Where a part of a side is missing, no example is made.

    Attributes:
        source: Name of the examples in mixtures and in what a run writes down.
        task_type: One of the nine.
        instruction: Instruction of their queries.
        query: Text and picture of the query.
        positive: Text and picture of the positive.
        pictured: True: made of candidates that passed the picture filter, once for each of their images. False: made
            once of every candidate that can be asked by name.
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
        ("passage", "illustration"),
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
        ("fused", "entity-image"),
        ("passage", ""),
    ),
    Recipe("look-up", "I->T", "Retrieve a passage about what the image shows.", ("", "entity-image"), ("passage", "")),
    Recipe("name", "T->I", "Find a picture of what is named.", ("entity", ""), ("", "entity-image")),
    Recipe(
        "picture-question-illustrated",
        "IT->IT",
        "Retrieve an illustrated passage that answers the question about the image.",
        ("fused", "entity-image"),
        ("passage", "other-image"),
    ),
    Recipe("look", "I->I", "Find another picture of the same thing.", ("", "entity-image"), ("", "other-image")),
    Recipe(
        "another-picture",
        "IT->I",
        "Find the picture that the text asks for, of what the image shows.",
        ("request", "entity-image"),
        ("", "other-image"),
    ),
)
"""The recipes of a corpus without its own; instructions are worded as GME's benchmark words such tasks."""
