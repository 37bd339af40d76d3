"""Any model of mteb as a system: mteb's `encode` with the vector store, search and metrics of this package.

A model of mteb may give each task a prompt of its own, so its vectors are stored by task and side. Knows nothing of
what is inside a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets  # type: ignore[import-untyped]
import mteb
import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ScoringFunction
from mteb.models.models_protocols import EncoderProtocol
from mteb.types import PromptType
from torch.utils.data import DataLoader

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.items import Item
from gme_data.tasks import TaskCard
from umrb.data.sides import unchanged
from umrb.data.tasks import NumberedTask
from umrb.systems.base import EncodedSide, VectorSystem
from umrb.systems.vectors import Vectors, VectorStore

_SUPPORTED_SIMILARITIES = (ScoringFunction.COSINE, ScoringFunction.DOT_PRODUCT)


@dataclass(frozen=True, slots=True)
class MtebSystem(VectorSystem):
    """A model of mteb on one of mteb's tasks.

    Attributes:
        name: Name of the model in tables.
        digest: Names the model, its revision and its options.
        store: Store of the vectors.
        model: Anything with mteb's `encode`.
        metadata: Metadata of mteb's task.
        batch_size: Batch size of the data loader that the model gets.
    """

    name: str
    digest: str
    store: VectorStore
    model: Any
    metadata: TaskMetadata
    batch_size: int = 32

    def applies_to(self, card: TaskCard) -> bool:
        """Return True: the rows that a model gets leave out what it can't encode."""
        return True

    def encoded_sides(self, task: NumberedTask) -> tuple[EncodedSide, EncodedSide]:
        """See `VectorSystem`."""
        return self._side(task, PromptType.query), self._side(task, PromptType.document)

    def _side(self, task: NumberedTask, prompt: PromptType) -> EncodedSide:
        side = task.queries if prompt is PromptType.query else task.docs
        space = self.store.space(sha256_json([self.digest, task.card.name, prompt.value]), None)

        def encode(items: Sequence[Item], images: Images | None) -> Vectors:
            return self._encode(task, prompt, items, images)

        return EncodedSide(f"{task.card.name}, {prompt.value}", side, side.digests(unchanged), space, encode)

    def _encode(self, task: NumberedTask, prompt: PromptType, items: Sequence[Item], images: Images | None) -> Vectors:
        rows = _rows(items, images, self.metadata.get_modalities(prompt))
        vectors = self.model.encode(
            DataLoader(rows, batch_size=self.batch_size, collate_fn=_columns),
            task_metadata=self.metadata,
            hf_split=task.card.split,
            hf_subset="default",
            prompt_type=prompt,
            show_progress_bar=False,
        )
        # Models of mteb return arrays, or tensors on any device.
        array = np.asarray(getattr(vectors, "cpu", lambda: vectors)(), dtype=np.float32)
        # An array of another shape goes to the store as it is, whose error says what is wrong with it.
        if self.model.mteb_model_meta.similarity_fn_name is ScoringFunction.DOT_PRODUCT or array.ndim != 2:
            return array
        # The search multiplies vectors, which equals their cosine only for unit vectors.
        return np.asarray(array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def mteb_system(model: EncoderProtocol, store: VectorStore, metadata: TaskMetadata) -> MtebSystem:
    """Make a system of a model of mteb, for the task that `metadata` describes.

    Raises:
        FoundryError: The model's similarity is neither cosine nor the inner product, or the task has videos.
    """
    if "video" in metadata.modalities:
        raise FoundryError(
            f"{metadata.name} has videos, which are frames here.", hint="Score models of mteb on it by `mteb.evaluate`."
        )
    meta = model.mteb_model_meta
    if meta is None or meta.similarity_fn_name not in _SUPPORTED_SIMILARITIES:
        raise FoundryError(
            f"Model {meta.name if meta else '?'} compares by {meta.similarity_fn_name if meta else '?'}.",
            hint="Models that compare by cosine or inner product of one vector each can be scored here.",
        )
    # mteb's version is part of the digest, since the prompts of its models change with it.
    digest = sha256_json([mteb.__version__, meta.name, meta.revision, meta.experiment_kwargs])
    return MtebSystem(str(meta.name), digest, store, model, metadata)


def _rows(items: Sequence[Item], images: Images | None, modalities: Sequence[str]) -> Any:  # noqa: ANN401
    """A data set of texts and of pictures that it decodes, as mteb's data loaders yield them."""
    columns: dict[str, list[Any]] = {}
    features: dict[str, Any] = {}
    if "text" in modalities:
        columns["text"] = [item.text or "" for item in items]
        features["text"] = datasets.Value("string")
    if "image" in modalities:
        encoded = [images.read(item.image) if item.image is not None and images else None for item in items]
        columns["image"] = [{"bytes": data, "path": None} if data else None for data in encoded]
        features["image"] = datasets.Image(mode="RGB")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
