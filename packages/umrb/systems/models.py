"""Models by name, as the suite takes them: folders and hub names of ours, and whatever mteb can load.

Knows how a model is found and named; nothing of tasks or scores.
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
"""Before the name of a model that mteb is to load."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model computes.

    Attributes:
        device: As torch names it; ``cuda`` under torchrun is the rank's own.
        dtype: Of weights and computation.
        store: Precision of vectors on disk.
        frames: Of a video whose vectors are averaged.
        batch_tokens: Tokens computed at once; None takes what is fast on the device.
        inputs: Input settings instead of the model's own, such as ``min_image_tokens``.
    """

    device: str = "cpu"
    dtype: str = "float32"
    store: Literal["float16", "float32"] = "float32"
    frames: int = 1
    batch_tokens: int | None = None
    inputs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be scored."""

    meta: ModelMeta
    make: SystemFactory


def open_model(source: str, vectors: Path, options: ModelOptions, *, name: str | None = None) -> LoadedModel:
    """Load a model.

    Args:
        source: A folder, a name on the hub, or ``mteb:`` and a name that mteb knows.
        vectors: Folder of the store.
        options: See the class; a model of mteb takes `device` and `store` alone.
        name: ``owner/model`` under which results are filed; by default `source`, or ``local/<folder>``.

    Raises:
        FoundryError: No such model, a name that mteb can't file, or options that a model of mteb does not take.
    """
    store = VectorStore(vectors, dtype=options.store)
    if source.startswith(MTEB):
        _refuse_for_mteb(options, name)
        return _of_mteb(_load_mteb(source.removeprefix(MTEB), _device(options.device)), store)
    filed = f"local/{Path(source).name}" if Path(source).is_dir() else source.partition("@")[0]
    return _ours(source, name or filed, store, options)


def encoder_digest(model: str, options: ModelOptions) -> str:
    """Names all that a model's vectors depend on: the digest of its folder, precision, input settings."""
    return sha256_json([model, {"dtype": options.dtype, **dict(options.inputs)}])


def variant_of(options: ModelOptions) -> dict[str, Any]:
    """All that changes a score and is not the default: results are filed apart by it."""
    default = ModelOptions()
    fields = ("dtype", "store", "frames")
    changed = {name: getattr(options, name) for name in fields if getattr(options, name) != getattr(default, name)}
    return {**changed, **dict(options.inputs)}


def score_mteb_model(model: EncoderProtocol, vectors: Path) -> LoadedModel:
    """A model of mteb that is loaded already."""
    return _of_mteb(model, VectorStore(vectors))


def _ours(source: str, name: str, store: VectorStore, options: ModelOptions) -> LoadedModel:
    from gme_embedder.embedder import Embedder
    from gme_embedder.locate import hub_commit

    embedder = Embedder.load(source, _device(options.device), options.dtype, **dict(options.inputs))
    digest = embedder.source.digest
    revision = hub_commit(embedder.source.folder) or digest  # mteb files what is on the hub by its commit
    meta = describe(embedder, name, revision, variant_of(options))
    encoder = Encoder(encoder_digest(digest, options), encode_with(embedder, options.batch_tokens))
    system = DenseSystem(name, encoder, store)
    return LoadedModel(meta, lambda loaded: system)


def _refuse_for_mteb(options: ModelOptions, name: str | None) -> None:
    """Raise for what would be passed over: a score under another precision than asked for is a wrong one."""
    set_ = [f"--{field}" for field in variant_of(replace(options, store="float32"))] + (["--name"] if name else [])
    if set_:
        raise FoundryError(
            f"A model of mteb does not take {', '.join(set_).replace('_', '-')}: it computes as mteb loads it.",
            hint="Leave them out; or give a model of ours by its folder or hub name.",
        )


def _of_mteb(model: EncoderProtocol, store: VectorStore) -> LoadedModel:
    meta = model.mteb_model_meta
    if meta is None:
        raise FoundryError("A model without `mteb_model_meta` can't be filed.", hint="Give it one, see mteb's docs.")
    if store.dtype != np.float32:
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


def _load_mteb(name: str, device: str) -> EncoderProtocol:
    try:
        found = mteb.get_model(name, device=device)
    except (KeyError, ValueError, ImportError, *HUB_ERRORS) as error:
        raise FoundryError(
            f"mteb can't load '{name}': {in_one_line(error)}",
            hint="`mteb available_models` names those that it has; some need a package, all need the hub or its cache.",
        ) from error
    if not isinstance(found, EncoderProtocol):
        raise FoundryError(f"'{name}' does not encode items one by one.", hint="Score it by `mteb.evaluate`.")
    return found


def _device(name: str) -> str:
    """``cuda`` is the GPU of this process; with more processes than GPUs they share them."""
    if name != "cuda":
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(torch.cuda.device_count(), 1)}"
