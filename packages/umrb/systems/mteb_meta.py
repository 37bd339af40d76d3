"""The `ModelMeta` of a model, which mteb records beside its results.

It states only what the model itself shows; licence, languages and training data, which it does not, are None. Fetches
nothing. Knows no task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mteb.models.model_meta import ModelMeta, ScoringFunction

from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder


def describe(embedder: Embedder, name: str, revision: str, variant: Mapping[str, Any]) -> ModelMeta:
    """Return the metadata of a model.

    mteb files results by name, revision and variant, and does not evaluate again what it finds there: whatever changes
    a vector must be in one of the three.

    Args:
        embedder: The model as it computes.
        name: ``owner/model``.
        revision: Digest of the weights and settings on disk, see `gme_embedder.model_files.identity.model_digest`.
        variant: Settings that differ from those on disk: precision, input settings, instructions.

    Raises:
        FoundryError: `name` does not have the form ``owner/model``, which mteb requires.
    """
    if not all(name.partition("/")[::2]):
        raise FoundryError(f"mteb can't file a model called '{name}'.", hint="Name it owner/model, e.g. team/gme-tiny.")
    weights = list(embedder.model.qwen.parameters())
    return ModelMeta(
        loader=None,
        name=name,
        revision=revision,
        release_date=None,
        languages=None,
        n_parameters=sum(weight.numel() for weight in weights),
        n_embedding_parameters=embedder.model.language.embed_tokens.weight.numel(),
        memory_usage_mb=round(sum(weight.nbytes for weight in weights) / 2**20, 1),
        max_tokens=embedder.settings.inputs.max_tokens,
        embed_dim=embedder.dimension,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers", "safetensors"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=True,
        training_datasets=None,
        modalities=["text", "image"],
        model_type=["dense"],
        experiment_kwargs=dict(variant) or None,
    )
