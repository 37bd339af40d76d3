"""The embedder: prompt, pictures, the packed Qwen2-VL, pooling; vectors on disk and their search; frozen teachers.

    from gme_embedder import Embedder

Knows how an item becomes a vector. Knows no training loop, no benchmark, no data set.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gme_embedder.embedder import Embedder

__all__ = ["Embedder"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as the attribute that is asked for
    # Imported on first use, since torch takes seconds and configs and costs need none of it. Named by a string, since
    # the code digest of every step that imports any module of this package would cover the whole model otherwise.
    if name == "Embedder":
        return importlib.import_module("gme_embedder.embedder").Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
