"""The frozen encoders see what they were trained to see."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gme_embedder.frozen import EfficientNetLite0, MiniLM


def test_minilm_puts_meanings_together():
    texts = ["The capital of Chile is Santiago.", "Santiago is Chile's capital city.", "Bananas are rich in potassium."]
    vectors = MiniLM().encode(texts)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.8
    assert vectors[0] @ vectors[2] < 0.3


def test_minilm_takes_nothing():
    assert MiniLM().encode([]).shape == (0, 384)


def _disc(colour: str, at: int) -> Image.Image:
    image = Image.new("RGB", (120, 80), "white")
    ImageDraw.Draw(image).ellipse((at, 20, at + 40, 60), fill=colour)
    return image


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite0()


def test_efficientnet_puts_looks_together(network):
    stripes = Image.fromarray(np.tile(np.array([[0], [255]], np.uint8).repeat(8, 0), (5, 120))).convert("RGB")
    vectors = network.encode([_disc("red", 38), _disc("red", 44), stripes])
    assert vectors.shape == (3, 1280)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_efficientnet_does_not_mind_the_batch(network):
    pictures = [_disc(colour, 40) for colour in ("red", "green", "blue")]
    np.testing.assert_allclose(network.encode(pictures, batch_size=2), network.encode(pictures), atol=1e-5)
    assert network.encode([]).shape == (0, 1280)
