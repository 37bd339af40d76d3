"""Which model a folder holds: one digest of all that its vectors depend on.

The same digest wherever the folder lies and however it is called (path, hub name, alias), so it is what vectors on
disk, an index and a running server name their model by. Precision, device and instruction are not the model's: whoever
records vectors notes them beside it. Who has loaded a model takes the digest of what was loaded from the `Embedder`.
"""

from __future__ import annotations

from pathlib import Path

from gme_embedder.model_files.model_folder import ModelFolder


def model_digest(folder: Path) -> str:
    """Digest of the content of a model folder that decides vectors.

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
