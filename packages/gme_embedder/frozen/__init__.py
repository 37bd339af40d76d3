"""Frozen encoders from installed packages: teachers, filters and baselines. They are used, never trained."""

from gme_embedder.frozen.efficientnet import EfficientNetLite0
from gme_embedder.frozen.minilm import MiniLM

__all__ = ["EfficientNetLite0", "MiniLM"]
