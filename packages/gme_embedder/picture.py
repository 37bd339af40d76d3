"""Pictures to patches: resize, then cut into 14x14 patches in the order Qwen2-VL reads them.

Knows pixels only. Normalisation happens in the tower, so what travels to the model are bytes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gme_data.errors import FoundryError
from gme_embedder.config import PictureConfig

PATCH = 14
MERGE = 2
CELL = PATCH * MERGE
"""Pixels a side that one visual token covers."""

_FIRST_MIN_PIXELS, _FIRST_MAX_PIXELS = 4 * CELL**2, 16384 * CELL**2
_MAX_RATIO = 200


def smart_resize(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width as multiples of 28 with a pixel count within the limits and the proportions about kept.

    Raises:
        FoundryError: One side is more than 200 times the other.
    """
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise FoundryError(f"A picture of {width}x{height} px: sides may differ by a factor of {_MAX_RATIO} at most.")
    # Python rounds halves to even here, as the released code does.
    tall, wide = max(CELL, round(height / CELL) * CELL), max(CELL, round(width / CELL) * CELL)
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall = max(CELL, math.floor(height / shrink / CELL) * CELL)
        wide = max(CELL, math.floor(width / shrink / CELL) * CELL)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall, wide = math.ceil(height * grow / CELL) * CELL, math.ceil(width * grow / CELL) * CELL
    return tall, wide


def target_sizes(height: int, width: int, config: PictureConfig) -> list[tuple[int, int]]:
    """The sizes (height, width) a picture is resized to, one after the other."""
    if config.fit == "square":
        side = config.page_side if max(height, width) >= config.page_from else config.side
        return [(side, side)]
    sizes = []
    if config.resize == "double":
        height, width = smart_resize(height, width, _FIRST_MIN_PIXELS, _FIRST_MAX_PIXELS)
        sizes.append((height, width))
    limits = config.min_image_tokens * CELL**2, config.max_image_tokens * CELL**2
    return [*sizes, smart_resize(height, width, *limits)]


def resized(image: Image.Image, config: PictureConfig) -> NDArray[np.uint8]:
    """The RGB picture at the size the tower sees, uint8 [height, width, 3]."""
    for height, width in target_sizes(image.height, image.width, config):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def patchify(pixels: Tensor) -> Tensor:
    """Cut equal-sized pictures [n, height, width, 3] into patches [n, patches, 588].

    The four patches of one visual token are neighbours; inside a patch the order is channel, row, column.
    """
    count, height, width, channels = pixels.shape
    rows, columns = height // CELL, width // CELL
    cut = pixels.reshape(count, rows, MERGE, PATCH, columns, MERGE, PATCH, channels)
    # n, row of tokens, column of tokens, row in token, column in token, channel, row in patch, column in patch
    ordered = cut.permute(0, 1, 4, 2, 5, 7, 3, 6)
    return ordered.reshape(count, rows * columns * MERGE**2, channels * PATCH**2)
