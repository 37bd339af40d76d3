"""Opens models for the benchmark: folders and hub names of embedders, and any model that mteb can load.

Knows how a model is located and named; nothing of tasks or scores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mteb
import numpy as np
import torch
from mteb.models.model_meta import ModelMeta
from mteb.models.models_protocols import EncoderProtocol

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.hub import HUB_ERRORS, in_one_line
from umrb.data.loading import LoadedTask
from umrb.systems.base import DenseSystem, Encoder, SystemFactory, VectorSystem, encode_with
from umrb.systems.mteb_meta import describe
from umrb.systems.mteb_system import mteb_system
from umrb.systems.vectors import VectorStore

MTEB = "mteb:"
"""Prefix of the name of a model that mteb loads."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Settings of a model's computation.

    Attributes:
        device: Device as torch names it; ``cuda`` under torchrun is the rank's own.
        dtype: Precision of weights and computation.
        store: Precision of vectors on disk.
        frames: Frames of a video whose vectors are averaged.
        batch_tokens: Tokens of a batch; None takes what is fast on the device.
        inputs: Input settings that replace the model's own, such as ``min_image_tokens``.
    """

    device: str = "cpu"
    dtype: str = "float32"
    store: Literal["float16", "float32"] = "float32"
    frames: int = 1
    batch_tokens: int | None = None
    inputs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to be scored.

    Attributes:
        meta: Metadata by which mteb files its results.
        make: Makes the system that scores a task.
    """

    meta: ModelMeta
    make: SystemFactory


def open_model(source: str, vectors: Path, options: ModelOptions, *, name: str | None = None) -> LoadedModel:
    """Load a model.

    Args:
        source: A folder, a name on the hub, or ``mteb:`` and a name that mteb knows.
        vectors: Folder of the vector store.
        options: See the class; a model of mteb takes `device` and `store` alone.
        name: ``owner/model`` under which results are filed; by default `source`, or ``local/<folder>``.

    Raises:
        FoundryError: There is no such model, mteb can't file results under the name, or a model of mteb does not take
            the options.
    """
    store = VectorStore(vectors, dtype=options.store)
    if source.startswith(MTEB):
        _refuse_for_mteb(options, name)
        return _wrap_mteb_model(_load_mteb_model(source.removeprefix(MTEB), _device(options.device)), store)
    filed = f"local/{Path(source).name}" if Path(source).is_dir() else source.partition("@")[0]
    return _open_embedder(source, name or filed, store, options)


def encoder_digest(model: str, options: ModelOptions) -> str:
    """Digest of all that a model's vectors depend on: the digest of its folder, precision, input settings."""
    return sha256_json([model, {"dtype": options.dtype, **dict(options.inputs)}])


def variant_of(options: ModelOptions) -> dict[str, Any]:
    """Return the options that change a score and differ from the defaults; results are filed apart by them."""
    default = ModelOptions()
    fields = ("dtype", "store", "frames")
    changed = {name: getattr(options, name) for name in fields if getattr(options, name) != getattr(default, name)}
    return {**changed, **dict(options.inputs)}


def score_mteb_model(model: EncoderProtocol, vectors: Path) -> LoadedModel:
    """Make a model that mteb has loaded already ready to be scored."""
    return _wrap_mteb_model(model, VectorStore(vectors))


def _open_embedder(source: str, name: str, store: VectorStore, options: ModelOptions) -> LoadedModel:
    from gme_embedder.embedder import Embedder
    from gme_embedder.model_files.locate import hub_commit

    embedder = Embedder.load(source, _device(options.device), options.dtype, **dict(options.inputs))
    digest = embedder.source.digest
    # mteb files the results of models on the hub by their commit.
    revision = hub_commit(embedder.source.folder) or digest
    meta = describe(embedder, name, revision, variant_of(options))
    encoder = Encoder(encoder_digest(digest, options), encode_with(embedder, options.batch_tokens))
    system = DenseSystem(name, encoder, store)
    return LoadedModel(meta, lambda loaded: system)


def _refuse_for_mteb(options: ModelOptions, name: str | None) -> None:
    """Raise for options that would be ignored: a score under another precision than the requested one is wrong."""
    ignored = [f"--{field}" for field in variant_of(replace(options, store="float32"))] + (["--name"] if name else [])
    if ignored:
        raise FoundryError(
            f"A model of mteb does not take {', '.join(ignored).replace('_', '-')}: it computes as mteb loads it.",
            hint="Leave them out; or give a model of ours by its folder or hub name.",
        )


def _wrap_mteb_model(model: EncoderProtocol, store: VectorStore) -> LoadedModel:
    meta = model.mteb_model_meta
    if meta is None:
        raise FoundryError("A model without `mteb_model_meta` can't be filed.", hint="Give it one, see mteb's docs.")
    if store.dtype != np.float32:
        # Rounding on disk changes scores, so such results are filed apart.
        kwargs = {**(meta.experiment_kwargs or {}), "store": str(store.dtype)}
        meta = meta.model_copy(update={"experiment_kwargs": kwargs})

    def make(loaded: LoadedTask) -> VectorSystem:
        if loaded.mteb is None:
            raise FoundryError(
                f"{loaded.task.card.name} is no task of mteb, and mteb's models are told which task they are at.",
                hint="Score suites of mteb's tasks with models of mteb.",
            )
        return mteb_system(model, store, loaded.mteb.metadata)

    return LoadedModel(meta, make)


def _load_mteb_model(name: str, device: str) -> EncoderProtocol:
    try:
        model = mteb.get_model(name, device=device)
    except (KeyError, ValueError, ImportError, *HUB_ERRORS) as error:
        raise FoundryError(
            f"mteb can't load '{name}': {in_one_line(error)}",
            hint="`mteb available_models` names those that it has; some need a package, all need the hub or its cache.",
        ) from error
    if not isinstance(model, EncoderProtocol):
        raise FoundryError(f"'{name}' does not encode items one by one.", hint="Score it by `mteb.evaluate`.")
    return model


def _device(name: str) -> str:
    """Resolve ``cuda`` to the GPU of this rank; if there are more ranks than GPUs, they share them."""
    if name != "cuda":
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(torch.cuda.device_count(), 1)}"
