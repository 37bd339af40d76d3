"""Pictures that callers hand over, in whatever shape they have them: read alike, or refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.images import MAX_BYTES
from gme_embedder.processing.inputs import parse_item

DEEP = np.random.default_rng(3).integers(0, 65536, (6, 8), dtype=np.uint16)


def loaded(image: object) -> np.ndarray:
    picture = parse_item({"image": image}, None).picture
    assert picture is not None
    pixels = picture.load()
    assert picture.size() == (pixels.height, pixels.width)
    assert pixels.mode == "RGB"
    return np.asarray(pixels)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_a_deep_picture_is_the_same_however_it_is_handed_over(mode: str, tmp_path: Path) -> None:
    levels = DEEP.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (8, 6), levels.tobytes())
    path = tmp_path / "scan.tif"
    image.save(path)
    data = path.read_bytes()
    expected = np.repeat((DEEP >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    lazy = Image.open(path)
    for shape in (image, path, str(path), data, bytearray(data), memoryview(data), lazy, levels, Image.fromarray(DEEP)):
        assert (loaded(shape) == expected).all(), type(shape)


def test_an_array_later_changed_by_its_owner_is_read_as_it_was() -> None:
    array = np.full((4, 4, 3), 200, np.uint8)
    picture = parse_item({"image": array}, None).picture
    array[:] = 0
    assert picture is not None
    assert np.asarray(picture.load()).min() == 200


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 8), np.float32), r"shape \[3, 8, 8\]"),
        (np.zeros((8, 8), np.int32), "array of int32"),
        ([[0, 1], [1, 0]], "must be a PIL picture, an array, a path or bytes, found list"),
        (io.BytesIO(b""), "found BytesIO"),
        ("no/such.png", "Picture not found: no/such.png"),
        ("https://example.org/a.png", "Picture not found: https"),
        ("iVBORw0KGgo" * 1000, "No path of a picture: 'iVBORw0KGgo.{189}\\.\\.\\.'"),
        ("a\0b.png", "Picture not found|No path of a picture"),
        (Image.new("F", (4, 4), 3.5), "mode F .32-bit floats. with levels from 3.5 to 3.5"),
        (Image.new("RGB", (0, 4)), "0x4 pixels has nothing to see"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(image: object, message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        loaded(image)


def test_a_lazy_picture_whose_file_was_closed_is_refused_at_once(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(FoundryError, match="damaged"):
        parse_item({"image": image}, None)


def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(2 * MAX_BYTES)
    picture = parse_item({"image": path}, None).picture
    assert picture is not None
    with pytest.raises(FoundryError, match=f"{MAX_BYTES + 1} bytes, more than the allowed"):
        picture.size()
