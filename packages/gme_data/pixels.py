"""Pixels of any depth, byte order and transparency as 8-bit RGB on white: scaled right, or refused by name.

What Pillow converts rightly is left to Pillow. It clips 16-bit, 32-bit and float levels where they must be scaled,
drops some kinds of transparency, and reads a transparent colour at another depth than the pixels: that is done here.
Knows arrays and opened pictures; nothing of files and their bounds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.errors import FoundryError

Levels: TypeAlias = NDArray[np.uint8]
"""0-255, whatever the depth they came in."""

_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_DEEP = (*_GREY_16, "I", "F")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_UNSCALED_KEY = {"L;2": 85, "L;4": 17}
"""The factor by which Pillow scales levels of a grey PNG, but not its transparent level, by raw mode."""
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""TIFF tags."""
_WHITE_IS_ZERO = 0
_SIGNED = (2,)


def before_decoding(image: Image.Image, name: str) -> None:
    """Handles what Pillow forgets once pixels are decoded: the depth in which a file gives its transparent colour.

    The transparent level of a grey PNG of 2 or 4 bits is brought to the scale of the decoded pixels, in ``image.info``.

    Raises:
        FoundryError: A transparent colour of 16 bits a channel, of which Pillow keeps 8.
    """
    tiles = getattr(image, "tile", [])  # of a picture that was opened from a file
    raw_mode = str(tiles[0].args) if tiles else ""
    key = image.info.get("transparency")
    if image.mode == "RGB" and raw_mode.startswith("RGB;16") and key is not None:
        raise _deep_key(name)
    if image.mode == "L" and raw_mode in _UNSCALED_KEY and isinstance(key, int):
        image.info["transparency"] = key * _UNSCALED_KEY[raw_mode]


def rgb_on_white(image: Image.Image, name: str) -> Image.Image:
    """Returns a decoded picture as RGB; transparency is laid on white.

    Raises:
        FoundryError: Levels of a range that can't be told, or a transparent colour that does not fit the pixels.
        Exception: Whatever Pillow raises for a damaged picture.
    """
    if image.mode in _DEEP:
        return Image.fromarray(_deep_levels(image, name)).convert("RGB")
    if image.mode in _PREMULTIPLIED:  # Pillow goes to RGB by way of black
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        _check_key(image, name)
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def array_levels(array: NDArray[Any], name: str) -> Levels:
    """Returns the levels of an array of pixels.

    Args:
        array: [height, width], [height, width, 1], or [height, width, 3 or 4] with the alpha channel last; bool, uint8,
            uint16, or floats from 0 to 1 (or whole ones up to 255).
        name: For errors.

    Returns:
        uint8 [height, width] or [height, width, 3 or 4], narrowed as files of that depth are.

    Raises:
        FoundryError: Another shape, type or range.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise FoundryError(
            f"{name}: an array of shape {list(array.shape)} is no picture; expected [height, width], "
            "[height, width, 3] or [height, width, 4].",
            hint="Put the channels last: array.transpose(1, 2, 0).",
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _high_bytes(array)
    if array.dtype.kind == "f":
        return _float_levels(array.astype(np.float32), f"{name}: an array of {array.dtype}")
    raise FoundryError(
        f"{name}: the range of an array of {array.dtype} can't be told; expected bool, uint8, uint16 or floats from 0 "
        "to 1.",
        hint="Convert it: array.astype('uint8') if its levels go from 0 to 255.",
    )


def _deep_levels(image: Image.Image, name: str) -> Levels:
    """Returns the levels [height, width] of a grey picture of more than 8 bits, the transparent one white."""
    values: NDArray[Any] = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF as it was opened
    if image.mode == "F":
        levels = _float_levels(values, f"{name}: a picture of mode F (32-bit floats)")
    elif image.mode == "I":
        if tags.get(_SAMPLE_FORMAT) == _SIGNED and tags.get(_BITS) == (16,):
            raise _no_range(f"{name}: a picture of signed 16-bit levels")
        levels = _high_bytes(_fitting_16_bits(values, name))
    else:
        # Pillow unpacks 12 bits as they are.
        levels = (values >> 4).astype(np.uint8) if tags.get(_BITS) == (12,) else _high_bytes(values)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts it up to 8 bits only
        levels = np.uint8(255) - levels
    key = image.info.get("transparency")
    if key is not None:
        levels[values == key] = 255
    return levels


def _high_bytes(values: NDArray[Any]) -> Levels:
    """Narrows 16 bits to 8 as Pillow narrows RGB of 16 bits a channel, so that grey and colour agree."""
    levels: Levels = (values >> 8).astype(np.uint8)
    return levels


def _fitting_16_bits(values: NDArray[np.int32], name: str) -> NDArray[np.int32]:
    """Returns levels of Pillow's mode I that are plainly of 16 bits, and refuses others.

    The mode has no agreed white; it mostly holds 16-bit arrays, for want of a better mode.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF or 0 < high <= 0xFF:
        raise _no_range(f"{name}: a picture of mode I (32-bit integers) with levels from {low} to {high}")
    return values


def _float_levels(values: NDArray[np.float32], subject: str) -> Levels:
    """Scales floats from 0 to 1; whole numbers up to 255, which Pillow makes of 8-bit pictures, stay."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):  # NaN comes through both, and infinity through one
        raise FoundryError(f"{subject} holds NaN or infinite levels.", hint="Replace them: numpy.nan_to_num.")
    if low >= 0 and high <= 1:
        levels: Levels = np.rint(values * np.float32(255)).astype(np.uint8)
        return levels
    if low >= 0 and high <= 255 and bool((values == np.floor(values)).all()):
        return values.astype(np.uint8)
    raise _no_range(f"{subject} with levels from {low:g} to {high:g}")


def _check_key(image: Image.Image, name: str) -> None:
    """Refuses a transparent colour of 16 bits: Pillow would take its low byte, and make other colours transparent."""
    key = image.info.get("transparency")
    values = key if isinstance(key, tuple) else (key,)
    if image.mode in ("L", "RGB") and any(isinstance(value, int) and not 0 <= value <= 0xFF for value in values):
        raise _deep_key(name)


def _deep_key(name: str) -> FoundryError:
    return FoundryError(
        f"{name}: a picture with a transparent colour of 16 bits a channel, of which 8 can be read.",
        hint="Save it with an alpha channel instead (RGBA), or with 8 bits a channel.",
    )


def _no_range(subject: str) -> FoundryError:
    return FoundryError(
        f"{subject}: what is white can't be told.",
        hint="Scale it to 8 bits (0 to 255, mode L or RGB), 16 bits (0 to 65535, uint16), or floats from 0 to 1.",
    )
