"""Text encoders for the filters: MiniLM from its package, any sentence-transformers folder, or an embedder of ours.

Queries and passages get the model's own prompts, where it has them, as gte-Qwen2-1.5B-instruct does.
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
    """Two functions into one vector space.

    Attributes:
        name: Identity of the weights; the embedding store keeps vectors under it.
        queries: Encodes queries.
        passages: Encodes passages.
    """

    name: str
    queries: Encode
    passages: Encode


def load_encoder(model: str, device: str = "cpu") -> TextEncoder:
    """Loads the encoder that `model` names: ``minilm``, a sentence-transformers folder, or a model folder of ours.

    Raises:
        FoundryError: There is no such folder, or the package of MiniLM is not installed.
    """
    # The imports are late, since the configuration imports this module, and reading a file must not load torch.
    if model == MINILM:
        from gme_embedder.frozen import MiniLM

        minilm = MiniLM()
        version = importlib.metadata.version("sentence-transformers")
        return TextEncoder(f"{minilm.name} {version}", minilm.encode, minilm.encode)
    folder = Path(model)
    if (folder / "modules.json").is_file():
        return _load_sentence_transformer(folder, device)
    if not folder.is_dir():
        raise FoundryError(f"No text encoder at {model!r}.", hint="Give 'minilm' or the folder of a model.")
    from gme_embedder.embedder import Embedder

    embedder = Embedder.load(folder, device=device)
    return TextEncoder(embedder.source.digest, embedder.encode, embedder.encode)


def _load_sentence_transformer(folder: Path, device: str) -> TextEncoder:
    from sentence_transformers import SentenceTransformer

    VerifiedFolder.containing(folder)
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    query_prompt = "query" if "query" in (model.prompts or {}) else None
    # The digest of the files, not their path: another model may come to lie at the same path.
    digest = content_digest(list_files(folder))
    return TextEncoder(digest, partial(_encode, model, query_prompt), partial(_encode, model, None))


def _encode(model: Any, prompt: str | None, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ANN401 - untyped
    vectors = model.encode(list(texts), prompt_name=prompt, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)
