"""Items as a report shows them: cards with thumbnails, examples of retrieval, samples of vectors; and their readers.

Knows no model and no HTML. `umrb.scoring.examples` writes the files.
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
"""Folder of examples and samples, beside the results."""
SIDES = ("queries", "docs")
THUMBNAIL_SIZE = (96, 72)
"""Width and height of thumbnails in pixels, at most."""
PAGE_THUMBNAIL_SIZE = (150, 190)
"""Size of the thumbnails of document pages, whose text must stay readable in outline."""
_WEBP_QUALITY = 72
_MAX_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class ItemCard:
    """An item as a page shows it: its text, and its picture as a data URI."""

    text: str | None
    picture: str | None


@dataclass(frozen=True, slots=True)
class RetrievedDocument:
    """A retrieved document, with its score for the query."""

    card: ItemCard
    score: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class RetrievalExample:
    """One query with the first documents that were retrieved; a row of a file of examples.

    Attributes:
        task: Name of the task.
        query: The query.
        found: The first documents, best first.
        rank: Rank from 1 of the first relevant document; None if none was retrieved.
        answer: A relevant document, for queries that missed.
    """

    task: str
    query: ItemCard
    found: list[RetrievedDocument]  # files of earlier runs have this key
    rank: int | None
    answer: ItemCard | None


@dataclass(frozen=True, slots=True)
class VectorSample:
    """Vectors of some queries and documents of a task, [m, d] each, and the modalities of both sides."""

    task: str
    queries: NDArray[np.float32]
    docs: NDArray[np.float32]
    modalities: tuple[str, str]


def make_card(item: Item, images: Images | None, size: tuple[int, int] = THUMBNAIL_SIZE) -> ItemCard:
    """Make the card of an item, with a thumbnail of at most `size` (width, height in pixels)."""
    text = item.text or None
    if text and len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS] + " ..."
    if item.image is None or images is None:
        return ItemCard(text, None)
    image = images.load(item.image)
    image.thumbnail(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_WEBP_QUALITY, method=6)
    return ItemCard(text, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode())


def read_examples(path: Path) -> list[RetrievalExample]:
    """Read the examples of a task; empty if none were written.

    Raises:
        FoundryError: The file is damaged.
    """
    if not path.exists():
        return []
    return read_json(path, list[RetrievalExample], hint="Run the step that wrote it again.")


def read_vector_sample(folder: Path, task: str, task_type: str) -> VectorSample | None:
    """Read the sampled vectors of a task; None if none were written.

    Raises:
        FoundryError: A file is damaged, or holds no numbers.
    """
    paths = [folder / f"{task}.{side}.npy" for side in SIDES]
    if not all(path.exists() for path in paths):
        return None
    # They are stored as float16, which is precise enough for a plot.
    queries, docs = (open_npy(path).astype(np.float32) for path in paths)
    return VectorSample(task, queries, docs, modalities_of(task_type))
