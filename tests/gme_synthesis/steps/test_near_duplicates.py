"""Near duplicates of texts and pictures are found, and others are not."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gme_synthesis.steps.near_duplicates import MinHashIndex, PictureHashIndex, difference_hash

LONG = " ".join(f"word{n % 37} goes{n % 11} on{n}" for n in range(60))


def scene(seed: int, size: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def test_near_texts() -> None:
    near = MinHashIndex(0.8)
    assert near.find_or_add("a", LONG) is None
    assert near.find_or_add("b", LONG.upper() + "!") == "a"
    assert near.find_or_add("c", LONG.replace("on17", "off17")) == "a"
    assert near.find_or_add("d", " ".join(reversed(LONG.split()))) is None
    assert near.find_or_add("e", "日本の首都は東京です") is None
    assert near.find_or_add("f", "日本の首都は東京です。") == "e"
    exact = MinHashIndex(1)
    assert exact.find_or_add("a", LONG) is None
    assert exact.find_or_add("b", LONG.replace("on17", "off17")) is None


def test_near_texts_among_thousands() -> None:
    near = MinHashIndex(0.8)
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 500, 40)) for _ in range(3000)]
    assert [near.find_or_add(str(n), text) for n, text in enumerate(texts)] == [None] * 3000
    changed = [text.rsplit(" ", 1)[0] + " end" for text in texts]  # one word of forty
    assert [near.find_or_add("x", text) for text in changed] == [str(n) for n in range(3000)]


def test_near_pictures() -> None:
    near = PictureHashIndex([difference_hash(scene(n)) for n in range(50)], distance=4)
    assert near.contains_near(difference_hash(scene(7, 200)))
    buffer = io.BytesIO()
    scene(7).save(buffer, "JPEG", quality=60)
    assert near.contains_near(difference_hash(Image.open(buffer)))
    assert sum(near.contains_near(difference_hash(scene(n))) for n in range(50, 150)) <= 1
