"""The step `baselines`: scores the systems that a trained model is compared with.

They are chance, the model before training, BM25, raw pixels, frozen encoders, and linear probes on them; each is scored
on the tasks whose two sides it can see.
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
from gme_embedder.modeling.precision import native_precision
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
_PICTURE_BATCH = 16
"""The batch is small enough that its activations stay in the processor's cache."""


def run_baselines(config: BaselineConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score every baseline on the tasks of ``inputs["corpus"]``, and of the other suites, that it applies to.

    Raises:
        FoundryError: A task can't be scored as it is.
    """
    evaluator = Evaluator(config, inputs["corpus"], context.staging)
    # Linear probes need training pairs of the corpus, which a corpus without such tasks may lack.
    if not any(task.dataset.task_type in SINGLE_MODALITY_TYPES for task in evaluator.tasks):
        systems_without_probes = tuple(name for name in config.systems if name != "linear_probes")
        config = config.model_copy(update={"systems": systems_without_probes})
    revision = sha256_json([config.model_dump(mode="json"), context.key])
    makers = build_baselines(config, evaluator.store, inputs["corpus"])
    systems = [evaluator.score(make(), revision) for make in makers]
    evaluator.write(systems)
    return {"systems": len(systems), "scores": sum(len(system.tasks) for system in systems)}


def build_baselines(config: BaselineConfig, store: VectorStore, corpus: Path) -> list[Callable[[], System]]:
    """Return one function per baseline that makes it, so that its weights are in memory only while it is scored.

    Args:
        config: Names of the baselines, and their settings.
        store: Store of the vectors.
        corpus: Its training examples are what linear probes are fitted to.
    """
    probes = config.linear_probes
    makers: dict[str, Callable[[], System]] = {
        "random": ChanceSystem,
        "untrained": lambda: DenseSystem("untrained", untrained(config), store),
        "bm25": LexicalSystem,
        "minilm": lambda: DenseSystem("MiniLM", minilm(native_precision(config.dtype, "cpu")), store),
        "pixels": lambda: DenseSystem("pixels", raw_pixels(config.pixels), store),
        "efficientnet": lambda: DenseSystem("EfficientNet", efficientnet(config.efficientnet_pixels), store),
        # Rows of earlier reports and the policies of gates call the linear probes "heads".
        "linear_probes": lambda: DenseSystem("heads", train_linear_probes(corpus, probes), store, _is_single_modality),
    }
    chosen = [makers[name] for name in config.systems]
    starter = config.starter
    # The row is last, since it is only there for runs that start from the shipped checkpoint.
    return [*chosen, lambda: DenseSystem("starter", fresh(starter, config), store)] if starter else chosen


def _is_single_modality(card: TaskCard) -> bool:
    return card.task_type in SINGLE_MODALITY_TYPES


def untrained(config: BaselineConfig) -> Encoder:
    """Return the encoder that training starts from: a pretrained base model, or the tiny model with random weights."""
    from gme_embedder.embedder import Embedder

    base = config.base
    if base is None:
        return fresh(config.model, config)
    dtype = native_precision(config.dtype, config.device)
    # Input settings such as the number of visual tokens are those of the training.
    limits = base.model_dump(exclude={"model", "revision"})
    embedder = Embedder.load(base.model, config.device, dtype, revision=base.revision, inputs="gme", **limits)
    return Encoder(embedder.source.digest + dtype, encode_with(embedder, config.batch_tokens))


def fresh(model: ModelConfig, config: BaselineConfig) -> Encoder:
    """Return the tiny model before training: language layers and vision tower drawn at random, or the starter."""
    from gme_embedder.embedder import Embedder

    fresh_embedder = Embedder.fresh(model, config.seed)
    dtype = native_precision(config.dtype, config.device)
    embedder = Embedder(
        fresh_embedder.model.qwen,
        fresh_embedder.preparer.tokenizer,
        fresh_embedder.settings,
        device=config.device,
        dtype=dtype,
    )
    # The weights are a function of architecture and seed, so these name them.
    digest = sha256_json(["fresh", model.model_dump(mode="json"), config.seed, dtype])
    return Encoder(digest, encode_with(embedder, config.batch_tokens))


def minilm(dtype: str) -> Encoder:
    """Return the frozen all-MiniLM-L6-v2, which encodes the text of both sides, zero-shot."""
    import torch

    from gme_embedder.frozen import MiniLM

    model = MiniLM()

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction, images
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            vectors = model.encode([item.text or "" for item in items])
        # Vectors normalised in bfloat16 have lengths up to 1 % off, which would reorder near neighbours.
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    return Encoder(sha256_json(["all-MiniLM-L6-v2", dtype]), encode, TEXT, text_only, instructed=False)


def efficientnet(size: int) -> Encoder:
    """Return the frozen EfficientNet-lite0 (ImageNet), which encodes the picture of both sides, zero-shot."""
    from gme_embedder.frozen import EfficientNetLite0

    model = EfficientNetLite0(size=size)

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        return model.encode([picture(item, images) for item in items], batch_size=_PICTURE_BATCH)

    return Encoder(sha256_json(["efficientnet-lite0", size]), encode, PICTURE, picture_only, instructed=False)


def raw_pixels(size: int) -> Encoder:
    """Return the baseline without any learning: an item is its centred RGB thumbnail of `size` x `size` pixels."""

    def encode(items: Sequence[Item], instruction: str | None, images: Images | None) -> Vectors:
        del instruction
        return np.stack([_thumbnail_vector(picture(item, images), size) for item in items])

    return Encoder(sha256_json(["pixels", size]), encode, PICTURE, picture_only, instructed=False)


def picture(item: Item, images: Images | None) -> Image.Image:
    """Load the picture of an item that must have one."""
    if item.image is None or images is None:
        raise ValueError("a picture encoder was given an item without a picture")
    return images.load(item.image)


def _thumbnail_vector(image: Image.Image, size: int) -> Vectors:
    """[3 * size * size] unit vector of a thumbnail."""
    # Without subtracting 0.5 the white background alone would make all pictures similar.
    thumbnail = image.resize((size, size), Image.Resampling.BOX)
    values = np.asarray(thumbnail, dtype=np.float32).ravel() / 255.0 - 0.5
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-12), dtype=np.float32)
