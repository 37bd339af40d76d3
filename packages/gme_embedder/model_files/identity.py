"""The identity of a model: one digest of all that its vectors depend on.

It is the same wherever the folder lies and however it is named (path, hub name, alias), so vectors on disk, an index
and a running server name their model by it. Precision, device and instruction are no part of the model and are recorded
beside the digest. Code that has loaded a model takes the digest of the loaded files from `Embedder.source`.
"""

from __future__ import annotations

from pathlib import Path

from gme_embedder.model_files.model_folder import ModelFolder


def model_digest(folder: Path) -> str:
    """Returns the digest of the content of a model folder that decides vectors.

    Covers configuration, weights, tokenizer and input settings, by name and bytes, and for adapters the base that they
    are folded into; not the README, plots or logs beside them.

    Args:
        folder: As `locate` returns it.

    Returns:
        Hex sha256.

    Raises:
        FoundryError: See `ModelFolder.open`.
    """
    return ModelFolder.open(folder).digest
