"""The step `baselines`: what a trained model is compared with.

Chance, the model before training, words, raw pixels, frozen encoders without and with trained heads; each on the tasks
whose two sides it can see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gme_data.digests import sha256_json
from gme_data.images import Images
from gme_data.items import Item
from gme_data.steps import StepContext
from gme_data.tasks import TaskCard
from gme_embedder.config import ModelConfig
from gme_embedder.precision import native_precision
from umrb.config import BaselineConfig
from umrb.data.sides import picture_only, text_only
from umrb.scoring.evaluator import Evaluator
from umrb.systems.base import DenseSystem, Encoder, System, encode_with
from umrb.systems.chance import ChanceSystem
from umrb.systems.lexical import LexicalSystem
from umrb.systems.linear_probes import SINGLE_MODALITY_TYPES, train_linear_probes
from umrb.systems.vectors import Vectors, VectorStore

TEXT = frozenset({"T"})
PICTURE = frozenset({"I"})
_PICTURES_AT_ONCE = 16
"""Few enough that the activations of a batch stay in the processor's cache."""


def run_baselines(config: BaselineConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score every baseline on the tasks of ``inputs["corpus"]``, and of the other suites, that it applies to.

    Raises:
        FoundryError: A task can't be scored as it is.
    """
    judging = Evaluator(config, inputs["corpus"], context.staging)
    if not any(unit.dataset.task_type in SINGLE_MODALITY_TYPES for unit in judging.units):
        config = config.model_copy(update={"systems": tuple(name for name in config.systems if name != "heads")})
    revision = sha256_json([config.model_dump(mode="json"), context.key])
    makers = build_baselines(config, judging.store, inputs["corpus"])
    systems = [judging.score(make(), revision) for make in makers]
    judging.write(systems)
    return {"systems": len(systems), "scores": sum(len(system.tasks) for system in systems)}


def build_baselines(config: BaselineConfig, store: VectorStore, corpus: Path) -> list[Callable[[], System]]:
    """One maker per baseline: a system, with its weights in memory, exists only while it is scored.

    Args:
        config: Which, and how they are made.
        store: Where vectors are kept.
        corpus: Its train part is what heads learn from.
    """
    makers: dict[str, Callable[[], System]] = {
        "random": ChanceSystem,
        "untrained": lambda: DenseSystem("untrained", untrained(config), store),
        "bm25": LexicalSystem,
        "minilm": lambda: DenseSystem("MiniLM", minilm(native_precision(config.dtype, "cpu")), store),
        "pixels": lambda: DenseSystem("pixels", raw_pixels(config.pixels), store),
        "efficientnet": lambda: DenseSystem("EfficientNet", efficientnet(config.efficientnet_pixels), store),
        "heads": lambda: DenseSystem("heads", train_linear_probes(corpus, config.heads), store, _for_heads),
    }
    chosen = [makers[name] for name in config.systems]
    starter = config.starter
    return [*chosen, lambda: DenseSystem("starter", fresh(starter, config), store)] if starter else chosen


def _for_heads(card: TaskCard) -> bool:
    return card.task_type in SINGLE_MODALITY_TYPES


def untrained(config: BaselineConfig) -> Encoder:
    """What training starts from: a pretrained base model as it is, or the tiny model, drawn at random."""
    from gme_embedder.embedder import Embedder

    base = config.base
    if base is None:
        return fresh(config.model, config)
    dtype = native_precision(config.dtype, config.device)
    limits = base.model_dump(exclude={"model", "revision"})
    embedder = Embedder.load(base.model, config.device, dtype, revision=base.revision, inputs="gme", **limits)
    return Encoder(embedder.source.digest + dtype, encode_with(embedder, config.batch_tokens))


def fresh(model: ModelConfig, config: BaselineConfig) -> Encoder:
    """The tiny model as training finds it: language layers and a vision tower drawn at random, or the starter."""
    from gme_embedder.embedder import Embedder

    found, dtype = Embedder.fresh(model, config.seed), native_precision(config.dtype, config.device)
    embedder = Embedder(found.model.qwen, found.preparer.tokenizer, found.settings, device=config.device, dtype=dtype)
    digest = sha256_json(["fresh", model.model_dump(mode="json"), config.seed, dtype])
    return Encoder(digest, encode_with(embedder, config.batch_tokens))


def minilm(dtype: str) -> Encoder:
    """Frozen all-MiniLM-L6-v2 on the text of both sides, zero-shot."""
    import torch

    from gme_embedder.frozen import MiniLM

    model = MiniLM()

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction, images
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            vectors = model.encode([item.text or "" for item in items])
        # Lengths that were divided out in bfloat16 are off by up to 1 %, which would reorder near neighbours.
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    return Encoder(sha256_json(["all-MiniLM-L6-v2", dtype]), encode, TEXT, text_only, instructed=False)


def efficientnet(size: int) -> Encoder:
    """Frozen EfficientNet-lite0 (ImageNet) on the picture of both sides, zero-shot."""
    from gme_embedder.frozen import EfficientNetLite0

    model = EfficientNetLite0(size=size)

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        return model.encode([picture(item, images) for item in items], batch_size=_PICTURES_AT_ONCE)

    return Encoder(sha256_json(["efficientnet-lite0", size]), encode, PICTURE, picture_only, instructed=False)


def raw_pixels(size: int) -> Encoder:
    """Cosine of centred RGB thumbnails of `size` x `size`: what no learning at all sees."""

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        return np.stack([_thumbnail_vector(picture(item, images), size) for item in items])

    return Encoder(sha256_json(["pixels", size]), encode, PICTURE, picture_only, instructed=False)


def picture(item: Item, images: Images | None) -> Image.Image:
    """The picture of an item that was chosen for having one."""
    if item.image is None or images is None:
        raise ValueError("a picture encoder was given an item without a picture")
    return images.load(item.image)


def _thumbnail_vector(image: Image.Image, size: int) -> Vectors:
    """[3 * size * size] unit vector; 0.5 is taken off so that the white ground does not make all pictures alike."""
    thumbnail = image.resize((size, size), Image.Resampling.BOX)
    values = np.asarray(thumbnail, dtype=np.float32).ravel() / 255.0 - 0.5
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-12), dtype=np.float32)
