"""A small real world: coloured shapes drawn in two styles, their names, and questions to short texts."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw

from gme_data.examples import Example
from gme_data.images import ImageRecord
from gme_data.items import Item

COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square", "bar", "frame")
TOPICS = ("capital", "currency", "language")


def draw(colour: str, shape: str, *, outlined: bool) -> ImageRecord:
    image = Image.new("RGB", (40, 40), "white")
    pen = ImageDraw.Draw(image)
    style = {"fill": None, "outline": colour, "width": 4} if outlined else {"fill": colour}
    box = (6, 6, 34, 34) if shape != "bar" else (6, 16, 34, 24)
    if shape == "frame":
        style = {"fill": None, "outline": colour, "width": 9 if outlined else 6}
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, **style)
    data = io.BytesIO()
    image.save(data, "PNG")
    return ImageRecord.from_bytes(data.getvalue(), source="drawn", licence="CC0-1.0")


def example(number: int, source: str, task: str, query: Item, positive: Item, group: str, key: str) -> Example:
    return Example(
        id=f"{source}-{number:03d}",
        task_type=task,
        source=source,
        instruction=f"Find what fits ({source}).",
        query=query,
        positive=positive,
        negatives=(),
        entity_group=group,
        batch_key=key,
        answer=None,
        licence="CC0-1.0",
        split="train",
    )


def make_examples() -> tuple[list[Example], list[ImageRecord]]:
    examples, pictures = [], []
    for colour in COLOURS:
        for shape in SHAPES:
            full, outlined = draw(colour, shape, outlined=False), draw(colour, shape, outlined=True)
            pictures += [full, outlined]
            group = f"{colour} {shape}"
            common = {"group": group, "key": colour}
            number = len(pictures) // 2
            examples.append(example(number, "shape", "I->I", Item(image=full.id), Item(image=outlined.id), **common))
            examples.append(example(number, "shape-name", "T->I", Item(text=group), Item(image=full.id), **common))
    for place in range(12):
        for topic in TOPICS:
            query = Item(text=f"What is the {topic} of place number {place}?")
            text = Item(text=f"Place number {place}. Its {topic} is {topic[:3]}{place * 7 % 11}, as everyone knows.")
            number = place * len(TOPICS) + TOPICS.index(topic)
            examples.append(example(number, "question", "T->T", query, text, f"place {place}", topic))
    return examples, pictures
