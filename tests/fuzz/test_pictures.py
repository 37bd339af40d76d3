"""The picture door: what is saved without loss comes back as it was; all else is a picture or a `FoundryError`."""

from __future__ import annotations

import io
import random
from contextlib import suppress

import numpy as np
import pytest
from fuzz.harness import EXAMPLES, SEED, count, fuzzed, try_damaged
from fuzz.mutator import mutated
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.images import array_to_rgb, decode_rgb, to_rgb

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow says of damaged files
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
}
KINDS = [(kind, mode) for kind, modes in FORMATS.items() for mode in modes]


def drawn(mode: str, rng: random.Random) -> Image.Image:
    """A random picture of a mode."""
    width, height = rng.randint(1, 40), rng.randint(1, 40)
    if mode in ("I;16", "F"):
        levels = np.random.default_rng(rng.randrange(2**32)).random((height, width))
        array = levels.astype(np.float32) if mode == "F" else (levels * 65535).astype(np.uint16)
        return Image.fromarray(array)
    picture = Image.frombytes("RGBA", (width, height), rng.randbytes(width * height * 4))
    return picture.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else picture.convert(mode)


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.hardening("fuzz", "Z2", "pictures")
def test_whole_and_damaged_pictures(kind: str, mode: str) -> None:
    """A quarter of them damaged copies of one, the others pictures of their own, whole and damaged once each."""
    share = 1 / (3 * len(KINDS))

    def decode(data: bytes) -> None:
        picture = decode_rgb(data)
        assert picture.mode == "RGB"
        assert min(picture.size) > 0

    def draw_and_decode(number: int) -> None:
        rng = random.Random(f"{SEED}-{kind}-{mode}-{number}")
        image = drawn(mode, rng)
        data = saved(image, kind)
        decoded = decode_rgb(data)
        assert (decoded.mode, decoded.size) == ("RGB", image.size), number
        if kind not in ("JPEG", "GIF"):
            assert np.array_equal(np.asarray(decoded), np.asarray(to_rgb(image))), number
        count()
        if number:
            with suppress(FoundryError):
                decode(mutated(data, rng))
            count()
        else:
            try_damaged(data, decode, share=share)

    for number in range(max(2, round(EXAMPLES * share))):
        draw_and_decode(number)


ARRAYS = st.sampled_from(["bool", "uint8", "uint16", "int32", "int64", "float32", "float64", "complex64", "object"])


@fuzzed()
@given(
    kind=ARRAYS,
    shape=st.lists(st.integers(0, 5), max_size=4),
    scale=st.sampled_from([0.0, 1.0, 255.0, 65535.0, -1.0, float("nan"), 1e30]),
    seed=st.integers(0, 2**32),
)
@pytest.mark.hardening("fuzz", "Z2", "pictures")
def test_arrays(kind: str, shape: list[int], scale: float, seed: int) -> None:
    with np.errstate(all="ignore"):
        array = np.asarray(np.random.default_rng(seed).random(shape) * scale).astype(kind)
    try:
        picture = array_to_rgb(array)
    except FoundryError:
        return
    assert picture.mode == "RGB"
    assert picture.size == (shape[1], shape[0])
    if kind == "uint8" and shape[2:] == [3]:
        assert np.array_equal(np.asarray(picture), array)
