"""Pictures to patches: resize, then cut into patches in the order Qwen2-VL reads them.

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

MERGE = 2
"""Patches a side that make one visual token."""

_FIRST_MIN_TOKENS, _FIRST_MAX_TOKENS = 4, 16384
_MAX_RATIO = 200


def smart_resize(height: int, width: int, cell: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Height and width as multiples of `cell` px with a pixel count within the limits and the proportions about kept.

    Raises:
        FoundryError: One side is more than 200 times the other.
    """
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise FoundryError(f"A picture of {width}x{height} px: sides may differ by a factor of {_MAX_RATIO} at most.")
    # Python rounds halves to even here, as the released code does.
    tall, wide = max(cell, round(height / cell) * cell), max(cell, round(width / cell) * cell)
    if tall * wide > max_tokens * cell**2:
        shrink = math.sqrt(height * width / (max_tokens * cell**2))
        tall = max(cell, math.floor(height / shrink / cell) * cell)
        wide = max(cell, math.floor(width / shrink / cell) * cell)
    elif tall * wide < min_tokens * cell**2:
        grow = math.sqrt(min_tokens * cell**2 / (height * width))
        tall, wide = math.ceil(height * grow / cell) * cell, math.ceil(width * grow / cell) * cell
    return tall, wide


def target_sizes(height: int, width: int, config: PictureConfig) -> list[tuple[int, int]]:
    """The sizes (height, width) a picture is resized to, one after the other."""
    if config.fit == "square":
        side = config.page_side if max(height, width) >= config.page_from else config.side
        return [(side, side)]
    sizes = []
    if config.resize == "double":
        height, width = smart_resize(height, width, config.cell, _FIRST_MIN_TOKENS, _FIRST_MAX_TOKENS)
        sizes.append((height, width))
    return [*sizes, smart_resize(height, width, config.cell, config.min_image_tokens, config.max_image_tokens)]


def resized(image: Image.Image, config: PictureConfig) -> NDArray[np.uint8]:
    """The RGB picture at the size the tower sees, uint8 [height, width, 3]."""
    for height, width in target_sizes(image.height, image.width, config):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def patchify(pixels: Tensor, side: int) -> Tensor:
    """Cut equal-sized pictures [n, height, width, 3] into patches of `side` px.

    The four patches of one visual token are neighbours, as Qwen2-VL wants them. Inside a patch the order is row,
    column, channel: that of the bytes, three times as fast to copy as transformers' channel, row, column.

    Returns:
        [n, patches, side * side * 3].
    """
    count, height, width, channels = pixels.shape
    rows, columns = height // (side * MERGE), width // (side * MERGE)
    cut = pixels.reshape(count, rows, MERGE, side, columns, MERGE, side, channels)
    # n, row of tokens, column of tokens, row in token, column in token, row in patch, column in patch, channel
    ordered = cut.permute(0, 1, 4, 2, 5, 3, 6, 7)
    return ordered.reshape(count, rows * columns * MERGE**2, channels * side**2)
