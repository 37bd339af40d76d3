"""Text encoders for the filters: MiniLM from its package, any sentence-transformers folder, or an embedder of ours.

Queries and passages may be told apart by the model's own prompts, as gte-Qwen2-1.5B-instruct does.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.manifest import content_digest, list_files
from gme_data.verified import VerifiedFolder
from gme_synthesis.steps.consistency import Encode

MINILM = "minilm"


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Two functions into one space; `name` says whose vectors they are, for the store."""

    name: str
    queries: Encode
    passages: Encode


def load_encoder(which: str, device: str = "cpu") -> TextEncoder:
    """The encoder that `which` names: ``minilm``, a sentence-transformers folder, or a model folder of ours.

    Raises:
        FoundryError: There is no such folder, or the package of MiniLM is not installed.
    """
    if which == MINILM:
        from gme_embedder.frozen import MiniLM

        model = MiniLM()
        return TextEncoder(
            f"{model.name} {importlib.metadata.version('sentence-transformers')}", model.encode, model.encode
        )
    folder = Path(which)
    if (folder / "modules.json").is_file():
        return _sentence_transformer(folder, device)
    if not folder.is_dir():
        raise FoundryError(f"No text encoder at {which!r}.", hint="Give 'minilm' or the folder of a model.")
    from gme_embedder.embedder import Embedder

    embedder = Embedder.load(folder, device=device)
    return TextEncoder(embedder.source.digest, embedder.encode, embedder.encode)


def _sentence_transformer(folder: Path, device: str) -> TextEncoder:
    from sentence_transformers import SentenceTransformer

    VerifiedFolder.containing(folder)
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    prompt = "query" if "query" in (model.prompts or {}) else None
    name = content_digest(list_files(folder))  # its vectors are kept by its name, and a path says nothing of them
    return TextEncoder(name, partial(_encode, model, prompt), partial(_encode, model, None))


def _encode(model: Any, prompt: str | None, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ANN401 - untyped
    vectors = model.encode(list(texts), prompt_name=prompt, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)
