"""What a report shows of items: cards with thumbnails, examples made of them, samples of vectors; how they are read.

Knows no model and no HTML. See `umrb.scoring.examples` for who writes them.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.images import Images
from gme_data.items import Item, modalities_of
from gme_data.structured import read_json
from gme_embedder.vectors.npy import open_npy

EXAMPLES = "examples"
"""Folder of both, beside the results."""
SIDES = ("queries", "docs")
THUMB = (96, 72)
PAGE_THUMB = (150, 190)
_QUALITY = 72
_LONGEST_TEXT = 400


@dataclass(frozen=True, slots=True)
class ItemCard:
    """An item as a page shows it: text, and the picture as a data URI."""

    text: str | None
    picture: str | None


@dataclass(frozen=True, slots=True)
class RetrievedDocument:
    """A retrieved document."""

    card: ItemCard
    score: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class RetrievalExample:
    """One query with the first documents found.

    Attributes:
        rank: Rank from 1 of the first relevant document; None if it is not among those retrieved.
        answer: A relevant document, for queries that missed.
    """

    task: str
    query: ItemCard
    found: list[RetrievedDocument]
    rank: int | None
    answer: ItemCard | None


@dataclass(frozen=True, slots=True)
class VectorSample:
    """Vectors of some queries and documents of a task, [m, d] each, and what they are made of."""

    task: str
    queries: NDArray[np.float32]
    docs: NDArray[np.float32]
    modalities: tuple[str, str]


def make_card(item: Item, images: Images | None, size: tuple[int, int] = THUMB) -> ItemCard:
    """An item with its picture at most `size` (width, height in pixels)."""
    text = item.text or None
    if text and len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + " ..."
    if item.image is None or images is None:
        return ItemCard(text, None)
    image = images.load(item.image)
    image.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_QUALITY, method=6)
    return ItemCard(text, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode())


def read_examples(path: Path) -> list[RetrievalExample]:
    """Inverse of `write_examples`; empty if nothing was written.

    Raises:
        FoundryError: It is damaged.
    """
    if not path.exists():
        return []
    return read_json(path, list[RetrievalExample], hint="Run the step that wrote it again.")


def read_vector_sample(folder: Path, task: str, task_type: str) -> VectorSample | None:
    """Vectors kept of a task; None if there are none.

    Raises:
        FoundryError: They are damaged, or no numbers.
    """
    paths = [folder / f"{task}.{side}.npy" for side in SIDES]
    if not all(path.exists() for path in paths):
        return None
    queries, docs = (open_npy(path).astype(np.float32) for path in paths)
    return VectorSample(task, queries, docs, modalities_of(task_type))
