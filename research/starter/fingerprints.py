"""Fingerprints of pictures, and the near-duplicates among them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Floats = NDArray[np.float32]

_SIDE = 24
"""Side of a fingerprint in pixels."""


class Fingerprints:
    """Pictures in the two normalisations that are compared.

    Attributes:
        colours: The picture at 24 x 24 pixels, float32 [n, 24 * 24 * 3], 0-255.
        shapes: The picture cropped to its content, in grey, with zero mean and unit norm, float32 [n, 24 * 24].
    """

    def __init__(self, pictures: Iterable[Image.Image]) -> None:
        pairs = [_normalise(picture) for picture in pictures]
        self.colours = np.stack([colours for colours, _ in pairs]) if pairs else np.zeros((0, _SIDE**2 * 3), np.float32)
        self.shapes = np.stack([shapes for _, shapes in pairs]) if pairs else np.zeros((0, _SIDE**2), np.float32)


def near_duplicates(
    pictures: Fingerprints, references: Fingerprints, *, colour_distance: float, shape_correlation: float
) -> NDArray[np.bool_]:
    """Returns which of `pictures` [n] look like any of `references`.

    Args:
        pictures: Fingerprints of the pictures that are tested.
        references: Fingerprints that they are compared with.
        colour_distance: Mean absolute difference per channel (0-255) below which two pictures are alike.
        shape_correlation: Correlation of the shapes, of either sign, above which two pictures are alike. A negative one
            is an inverted picture.
    """
    alike = np.zeros(len(pictures.colours), dtype=np.bool_)
    for start in range(0, len(alike), 512):
        rows = slice(start, start + 512)
        correlations = np.abs(pictures.shapes[rows] @ references.shapes.T).max(axis=1, initial=0.0)
        alike[rows] = (correlations > shape_correlation) | _close(
            pictures.colours[rows], references.colours, colour_distance
        )
    return alike


def _close(colours: Floats, references: Floats, limit: float) -> NDArray[np.bool_]:
    """Returns which rows are within `limit` of any reference."""
    # Means over blocks differ by no more than the pixels do, so the coarse comparison discards no pair that is close.
    close = np.zeros(len(colours), dtype=np.bool_)
    coarse, coarse_references = _coarse(colours), _coarse(references)
    for row in range(len(colours)):
        candidates = references[np.abs(coarse_references - coarse[row]).mean(axis=1) < limit]
        close[row] = bool((np.abs(candidates - colours[row]).mean(axis=1) < limit).any())
    return close


def _coarse(colours: Floats) -> Floats:
    """Returns means over blocks of 4 x 4 pixels, float32 [n, 6 * 6 * 3]."""
    blocks = colours.reshape(len(colours), _SIDE // 4, 4, _SIDE // 4, 4, 3)
    coarse: Floats = blocks.mean(axis=(2, 4)).reshape(len(colours), (_SIDE // 4) ** 2 * 3)
    return coarse


def _normalise(picture: Image.Image) -> tuple[Floats, Floats]:
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=np.float32).reshape(-1)
    grey = ImageOps.grayscale(picture)
    pixels = np.asarray(grey, dtype=np.int16)
    # The content is what differs from the corner pixel, so that a shifted or smaller drawing has the same shape.
    content = np.argwhere(np.abs(pixels - pixels[0, 0]) > 24)
    if len(content):
        (top, left), (bottom, right) = content.min(axis=0), content.max(axis=0) + 1
        grey = grey.crop((int(left), int(top), int(right), int(bottom)))
    shapes = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
    shapes = shapes - shapes.mean()
    return colours, shapes / max(float(np.linalg.norm(shapes)), 1e-6)
