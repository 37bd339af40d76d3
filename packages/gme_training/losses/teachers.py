"""Vectors of the items of a training set by frozen teachers, computed once, before any rank starts.

MiniLM encodes texts, EfficientNet-lite0 encodes pictures; an item with both has no teacher. Knows items and batches;
not what is learned from the vectors.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gme_data.images import Images
from gme_data.items import Item
from gme_data.journal import atomic_write, fsync_tree
from gme_data.progress import Progress
from gme_training.data.batches import Batch, BatchSampler
from gme_training.data.catalog import Catalog, Ints
from gme_training.data.example_index import load_array, save_arrays

Teacher = Literal["text", "picture"]
"""A teacher, by the modality of the items that it encodes."""
TEACHERS: tuple[Teacher, ...] = ("text", "picture")
_SHARD = 1024
"""Items whose vectors are written to disk at once: a kill costs at most so many."""
_PIXELS = 112
"""Side of the pictures that EfficientNet-lite0 encodes."""
Vectors = NDArray[np.float32]


def ensure_teacher_vectors(samplers: Sequence[BatchSampler], catalog: Catalog, images: Images, folder: Path) -> None:
    """Encodes the items of all phases that distil, unless `folder` holds their vectors; a kill costs one shard of them.

    Raises:
        FoundryError: A teacher's package is not installed, or a picture can't be read.
    """
    distilling = [sampler for sampler in samplers if sampler.phase.distill]
    if not distilling or (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.unique(np.concatenate([sampler.sampled_rows() for sampler in distilling]))
    numbers = np.unique(np.concatenate([catalog.query[rows], catalog.positive[rows]]))
    items = [catalog.items[number] for number in numbers.tolist()]
    for teacher in TEACHERS:
        positions = [position for position, item in enumerate(items) if teacher_of(item) == teacher]
        # Row of each item of the training set in the teacher's vectors; -1 for items that it does not encode.
        row_of_item = np.full(len(catalog.items), -1, dtype=np.int32)
        row_of_item[numbers[positions]] = np.arange(len(positions))
        vectors = _encode(teacher, [items[position] for position in positions], images, folder / teacher)
        arrays: dict[str, NDArray[Any]] = {
            f"{teacher}_row": row_of_item,
            f"{teacher}_vectors": vectors.astype(np.float16),
        }
        save_arrays(folder, **arrays)
    fsync_tree(folder)
    atomic_write(folder / "done", b"")
    # Only now: until the folder is complete, a killed run resumes from these shards.
    for teacher in TEACHERS:
        shutil.rmtree(folder / teacher, ignore_errors=True)


def teacher_of(item: Item) -> Teacher | None:
    """Returns the teacher that encodes an item; None if it has both a text and a picture."""
    if item.image is None:
        return "text"
    return "picture" if item.text is None else None


class TeacherVectors:
    """The vectors of both teachers, mapped into memory.

    Args:
        folder: The folder that `ensure_teacher_vectors` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = {teacher: load_array(folder, f"{teacher}_row") for teacher in TEACHERS}
        self._vectors = {teacher: load_array(folder, f"{teacher}_vectors") for teacher in TEACHERS}

    def cosines(self, catalog: Catalog, batch: Batch, rows: Ints) -> Tensor | None:
        """Returns the cosines of some queries of a batch with its candidates, float32 [r, C].

        Where one side is text and the other a picture, the text stands in for its partner on both sides: two pictures
        count as similar as the texts of their pairs. None if a side has no teacher.
        """
        queries, candidates = catalog.query[batch.rows], batch.candidates
        query_teacher, candidate_teacher = self._common_teacher(queries), self._common_teacher(candidates)
        if query_teacher is None or candidate_teacher is None:
            return None
        if query_teacher == candidate_teacher:
            return self._products(query_teacher, queries[rows], candidates)
        if query_teacher == "text":
            partners = np.empty_like(candidates)
            partners[batch.targets] = queries
            return self._products("text", queries[rows], partners)
        return self._products("text", candidates[batch.targets[rows]], candidates)

    def _common_teacher(self, items: Ints) -> Teacher | None:
        return next((teacher for teacher in TEACHERS if (self._rows[teacher][items] >= 0).all()), None)

    def _products(self, teacher: Teacher, queries: Ints, candidates: Ints) -> Tensor:
        query_vectors, candidate_vectors = (
            torch.from_numpy(self._vectors[teacher][self._rows[teacher][items]].astype(np.float32))
            for items in (queries, candidates)
        )
        return query_vectors @ candidate_vectors.T


def _encode(teacher: Teacher, items: Sequence[Item], images: Images, folder: Path) -> Vectors:
    """Returns unit vectors, [n, d]; from those of pictures the mean of all pictures is subtracted first."""
    from gme_embedder.vectors.store import EmbeddingStore

    encode = _text_encoder() if teacher == "text" else _picture_encoder(images)
    with Progress(f"teacher of {teacher}s", len(items), f"{teacher}s") as progress:

        def compute(positions: list[int]) -> Vectors:
            vectors = encode([items[position] for position in positions])
            progress.advance(len(positions))
            return vectors

        store = EmbeddingStore(folder, chunk=_SHARD, dtype="float16")
        vectors = store.encode(teacher, [f"{item.text}\x00{item.image}" for item in items], compute)
    # What all pictures have in common would make every pair of them similar.
    if teacher == "picture" and len(vectors):
        vectors = vectors - vectors.mean(0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), dtype=np.float32)


def _text_encoder() -> Callable[[Sequence[Item]], Vectors]:
    from gme_embedder.frozen import MiniLM

    model = MiniLM()
    return lambda items: model.encode([item.text or "" for item in items])


def _picture_encoder(images: Images) -> Callable[[Sequence[Item]], Vectors]:
    from gme_embedder.frozen import EfficientNetLite0

    model = EfficientNetLite0(size=_PIXELS)
    return lambda items: model.encode([images.load(item.image or "") for item in items])
