"""What all exports share: a folder is written beside its target, loaded and compared, and only then moved into place.

Knows folders and vectors; not what the files in a folder are.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.structured import read_json
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.file_names import NO_LIMIT

MIN_COSINE = 0.9999
"""The lowest cosine of a vector of the model and that of the written folder."""


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yields a folder beside `folder` that replaces it when the block ends, and is removed after an error."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FoundryError(f"{folder} exists already.", hint="Give the name of a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        staging.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
        yield staging
        if folder.exists():
            folder.rmdir()
        os.replace(staging, folder)  # noqa: PTH105 - replaces, unlike Path.rename, in one step
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_precision(embedder: Embedder) -> None:
    """Refuses weights that would not be written exactly.

    Raises:
        FoundryError: The weights are not in float32.
    """
    if any(weight.dtype != torch.float32 for weight in embedder.model.parameters()):
        raise FoundryError(
            "A model is exported with its weights in float32.", hint='Load it with dtype="float32" (the default).'
        )


def probes() -> list[dict[str, Any]]:
    """Returns a text, a picture, a larger one of another shape, and a picture with a text."""
    small, large = (_picture(*size) for size in ((60, 90), (230, 210)))
    text = "Santiago is the capital of Chile."
    return [{"text": text}, {"image": small}, {"image": large}, {"image": small, "text": text}]


def _picture(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    channels = [(rows * 5 + columns * 3) % 256, (rows * columns) % 256, (columns * 7) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def compare(
    reader: str, folder: Path, expected: Sequence[NDArray[np.float32]], actual: Sequence[NDArray[np.float32]]
) -> None:
    """Refuses a folder whose vectors, as `reader` loads it, are not the model's.

    Raises:
        FoundryError: The least cosine is below `MIN_COSINE`.
    """
    pairs = zip(expected, actual, strict=True)
    lowest = min(float((vectors * others).sum(axis=1).min()) for vectors, others in pairs)
    if not lowest >= MIN_COSINE:  # so that NaN is refused as well
        raise FoundryError(
            f"{folder.name}, loaded by {reader}, gives other vectors than the model: cosine {lowest:.6f}.",
            hint="Nothing was written. The library may have changed how it loads models: try the version of the lock.",
        )


def update_json(path: Path, **changes: object) -> None:
    """Changes some fields of a JSON file."""
    write_json(path, read_json(path, dict[str, Any], max_integer=NO_LIMIT) | changes)


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file with sorted keys."""
    path.write_text(json.dumps(content, indent=2, sort_keys=isinstance(content, dict)) + "\n", encoding="utf-8")
