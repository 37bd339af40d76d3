"""One untrained tiny model per test process, and inputs drawn from a fixed seed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

_WORDS = "the capital of Chile is Santiago population rate electricity land river flag white blue star 42 1,204"


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.fresh(ModelConfig(), seed=7)


class Inputs:
    """Random texts and pictures."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(11)

    def text(self, words: int) -> str:
        return " ".join(self._random.choice(_WORDS.split(), words))

    def picture(self, width: int = 72, height: int = 72) -> Image.Image:
        return Image.fromarray(self._random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def inputs() -> Inputs:
    return Inputs()
