"""Pictures to patches: resized, then cut into patches in the order in which Qwen2-VL reads them.

Knows pixels only. The tower normalises them, so that bytes, a quarter of float32, travel to the model.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gme_data.errors import FoundryError
from gme_embedder.config import SPATIAL_MERGE_SIZE, PictureConfig

_FIRST_MIN_TOKENS, _FIRST_MAX_TOKENS = 4, 16384
"""The token limits of the first of the two resizes of the released code."""
_MAX_RATIO = 200
"""The limit of the released code for the longer side over the shorter one."""


def smart_resize(height: int, width: int, token_side: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Returns height and width as multiples of `token_side` px, within the token limits, at about the same proportions.

    Raises:
        FoundryError: One side is more than 200 times the other.
    """
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise FoundryError(f"A picture of {width}x{height} px: sides may differ by a factor of {_MAX_RATIO} at most.")
    # Python rounds halves to even here, as the released code does.
    new_height = max(token_side, round(height / token_side) * token_side)
    new_width = max(token_side, round(width / token_side) * token_side)
    if new_height * new_width > max_tokens * token_side**2:
        shrink = math.sqrt(height * width / (max_tokens * token_side**2))
        new_height = max(token_side, math.floor(height / shrink / token_side) * token_side)
        new_width = max(token_side, math.floor(width / shrink / token_side) * token_side)
    elif new_height * new_width < min_tokens * token_side**2:
        grow = math.sqrt(min_tokens * token_side**2 / (height * width))
        new_height = math.ceil(height * grow / token_side) * token_side
        new_width = math.ceil(width * grow / token_side) * token_side
    return new_height, new_width


def target_sizes(height: int, width: int, config: PictureConfig) -> list[tuple[int, int]]:
    """Returns the sizes (height, width) that a picture is resized to, one after the other."""
    if config.fit == "square":
        side = config.page_side if max(height, width) >= config.page_from else config.side
        return [(side, side)]
    sizes = []
    if config.resize == "double":
        height, width = smart_resize(height, width, config.token_side, _FIRST_MIN_TOKENS, _FIRST_MAX_TOKENS)
        sizes.append((height, width))
    return [*sizes, smart_resize(height, width, config.token_side, config.min_image_tokens, config.max_image_tokens)]


def resized(image: Image.Image, config: PictureConfig) -> NDArray[np.uint8]:
    """Returns the RGB picture at the size that the tower sees, uint8 [height, width, 3]."""
    for height, width in target_sizes(image.height, image.width, config):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8)


def patchify(pixels: Tensor, side: int) -> Tensor:
    """Cuts equal-sized pictures [n, height, width, 3] into patches of `side` px.

    The four patches of one visual token are neighbours, as Qwen2-VL expects them. Inside a patch the order is row,
    column, channel: that of the bytes, three times as fast to copy as transformers' channel, row, column.

    Returns:
        [n, patches, side * side * 3].
    """
    count, height, width, channels = pixels.shape
    merge = SPATIAL_MERGE_SIZE
    rows, columns = height // (side * merge), width // (side * merge)
    cut = pixels.reshape(count, rows, merge, side, columns, merge, side, channels)
    # n, row of tokens, column of tokens, row in token, column in token, row in patch, column in patch, channel
    ordered = cut.permute(0, 1, 4, 2, 5, 3, 6, 7)
    return ordered.reshape(count, rows * columns * merge**2, channels * side**2)
