"""A small real world: coloured shapes drawn in two styles, their names, and questions to short texts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, write_images
from gme_data.items import Item
from gme_embedder.config import ModelConfig, TowerConfig
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig

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


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of the training step: ``corpus`` with pictures, ``synthetic`` with examples."""
    examples, pictures = make_examples()
    folder = tmp_path_factory.mktemp("world")
    write_images(folder / "corpus" / "images", pictures)
    write_examples(folder / "synthetic" / "train", examples)
    return {"corpus": folder / "corpus", "synthetic": folder / "synthetic"}


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return make_examples()[0]


def make_config(**changes: object) -> TrainingConfig:
    """Two short phases on a model of one language layer and a one-block tower."""
    fields: dict[str, object] = {
        "model": ModelConfig(text_layers=1, tower=TowerConfig(depth=1, width=64, heads=2)),
        "phases": (
            PhaseConfig(
                name="tower",
                objective="tower",
                steps=12,
                text_learning_rate=0,
                vision_learning_rate=1e-3,
                mixture=(
                    SourceShare(source="shape", batch_size=16, weight=2, group_size=4, augment=0.5),
                    SourceShare(source="shape-name", batch_size=16, grouped=0),
                ),
            ),
            PhaseConfig(
                name="mix",
                steps=36,
                mixture=(
                    SourceShare(source="question", batch_size=16, weight=2, group_size=4),
                    SourceShare(source="shape-name", batch_size=16, group_size=4),
                ),
            ),
        ),
        "checkpoint_every": 6,
    }
    return TrainingConfig.model_validate({**fields, **changes})


@pytest.fixture(scope="session")
def small_config() -> Callable[..., TrainingConfig]:
    return make_config
