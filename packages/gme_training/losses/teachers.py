"""What frozen models think of the items of a training set: a vector of each, made once, before any rank starts.

MiniLM reads texts, EfficientNet-lite0 looks at pictures; an item with both has no teacher. Knows items and batches; not
what is learned from them.
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
from gme_training.data.batches import Batch, BatchPlan
from gme_training.data.catalog import Catalog, Ints
from gme_training.data.example_index import load_array, save_arrays

Kind = Literal["text", "picture"]
KINDS: tuple[Kind, ...] = ("text", "picture")
_SHARD = 1024
_PIXELS = 112
Vectors = NDArray[np.float32]


def ensure_teachers(plans: Sequence[BatchPlan], catalog: Catalog, images: Images, folder: Path) -> None:
    """Encode what the phases that distil will draw, unless `folder` holds it; a kill costs one shard of it.

    Raises:
        FoundryError: A teacher's package is not installed, or a picture can't be read.
    """
    teaching = [plan for plan in plans if plan.phase.distill]
    if not teaching or (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.unique(np.concatenate([plan.drawn() for plan in teaching]))
    numbers = np.unique(np.concatenate([catalog.query[drawn], catalog.positive[drawn]]))
    items = [catalog.items[number] for number in numbers.tolist()]
    for kind in KINDS:
        mine = [place for place, item in enumerate(items) if kind_of(item) == kind]
        row = np.full(len(catalog.items), -1, dtype=np.int32)
        row[numbers[mine]] = np.arange(len(mine))
        vectors = _encoded(kind, [items[place] for place in mine], images, folder / kind)
        made: dict[str, NDArray[Any]] = {f"{kind}_row": row, f"{kind}_vectors": vectors.astype(np.float16)}
        save_arrays(folder, **made)
    fsync_tree(folder)
    atomic_write(folder / "done", b"")
    for kind in KINDS:  # only now: until then they are what a killed run goes on from
        shutil.rmtree(folder / kind, ignore_errors=True)


def kind_of(item: Item) -> Kind | None:
    """Whose item it is; None if it has both a text and a picture."""
    if item.image is None:
        return "text"
    return "picture" if item.text is None else None


class Teachers:
    """Their vectors, mapped.

    Args:
        folder: What `ensure_teachers` left.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = {kind: load_array(folder, f"{kind}_row") for kind in KINDS}
        self._vectors = {kind: load_array(folder, f"{kind}_vectors") for kind in KINDS}

    def cosines(self, catalog: Catalog, batch: Batch, rows: Ints) -> Tensor | None:
        """Of some queries of a batch with its candidates, float32 [r, C]; None where no teacher sees both sides.

        Where one side is text and the other a picture, the text speaks for its pair: pictures are as alike as what is
        said of them.
        """
        queries, candidates = catalog.query[batch.rows], batch.candidates
        asked, offered = self._kind(queries), self._kind(candidates)
        if asked is None or offered is None:
            return None
        if asked == offered:
            return self._products(asked, queries[rows], candidates)
        if asked == "text":
            said = np.empty_like(candidates)
            said[batch.targets] = queries
            return self._products("text", queries[rows], said)
        return self._products("text", candidates[batch.targets[rows]], candidates)

    def _kind(self, items: Ints) -> Kind | None:
        """What all of them are."""
        return next((kind for kind in KINDS if (self._rows[kind][items] >= 0).all()), None)

    def _products(self, kind: Kind, queries: Ints, candidates: Ints) -> Tensor:
        left, right = (
            torch.from_numpy(self._vectors[kind][self._rows[kind][items]].astype(np.float32))
            for items in (queries, candidates)
        )
        return left @ right.T


def _encoded(kind: Kind, items: Sequence[Item], images: Images, folder: Path) -> Vectors:
    """Unit vectors [n, d]; those of pictures without what all pictures have in common."""
    from gme_embedder.vectors.store import EmbeddingStore

    encode = _texts() if kind == "text" else _pictures(images)
    with Progress(f"teacher of {kind}s", len(items), f"{kind}s") as progress:

        def compute(places: list[int]) -> Vectors:
            vectors = encode([items[place] for place in places])
            progress.advance(len(places))
            return vectors

        store = EmbeddingStore(folder, chunk=_SHARD, dtype="float16")
        vectors = store.encode(kind, [f"{item.text}\x00{item.image}" for item in items], compute)
    if kind == "picture" and len(vectors):
        vectors = vectors - vectors.mean(0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), dtype=np.float32)


def _texts() -> Callable[[Sequence[Item]], Vectors]:
    from gme_embedder.frozen import MiniLM

    model = MiniLM()
    return lambda items: model.encode([item.text or "" for item in items])


def _pictures(images: Images) -> Callable[[Sequence[Item]], Vectors]:
    from gme_embedder.frozen import EfficientNetLite0

    model = EfficientNetLite0(size=_PIXELS)
    return lambda items: model.encode([images.load(item.image or "") for item in items])
