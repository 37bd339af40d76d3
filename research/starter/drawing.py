"""Pixels: SVG to PNG on white or in two colours of choice, photographs made small, and how alike two pictures look.

Knows nothing of names.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageOps

from atlas.choice import seeded_hash
from gme_data.errors import FoundryError
from gme_data.images import decode_rgb

Floats = NDArray[np.float32]

_SIDE = 24
_INKS = (
    "#1f2937", "#000000", "#b91c1c", "#c2410c", "#a16207", "#15803d", "#0f766e", "#0369a1",
    "#1d4ed8", "#6d28d9", "#a21caf", "#be185d", "#7c2d12", "#365314", "#334155", "#4c1d95",
)  # fmt: skip
_GROUNDS = (
    "#ffffff", "#ffffff", "#ffffff", "#fef9c3", "#dbeafe",
    "#dcfce7", "#fce7f3", "#f3f4f6", "#ffedd5", "#ede9fe",
)  # fmt: skip


def draw_svg(svg: str, size: int, background: str = "#ffffff") -> bytes:
    """An SVG as PNG of `size` x `size` pixels on a coloured ground.

    Raises:
        FoundryError: The SVG cannot be drawn.
    """
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True
        )
    except (ValueError, RuntimeError) as error:
        raise FoundryError(f"a drawing cannot be rasterised: {error}") from error
    return encode(decode_rgb(bytes(png)))


def tint(svg: str, seed: int, *names: str) -> tuple[str, str]:
    """``(svg, ground)`` with a dark ink and a light ground drawn by `names`; dark and light swap now and then."""
    ink = _INKS[seeded_hash(seed, "ink", *names) % len(_INKS)]
    ground = _GROUNDS[seeded_hash(seed, "ground", *names) % len(_GROUNDS)]
    if seeded_hash(seed, "swap", *names) % 6 == 0:
        ink, ground = ground, ink
    return svg.replace("currentColor", ink), ground


def shrink(data: bytes, side: int, name: str) -> bytes:
    """A picture on white, at most `side` pixels high and wide, as PNG."""
    image = decode_rgb(data, name)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(image)


def encode(image: Image.Image) -> bytes:
    """PNG; the alpha channel is gone, so a reader need not know the ground."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


class Looks:
    """Pictures in the two normalisations by which near-duplicates are found.

    Attributes:
        colours: As drawn, on a square of 24 pixels, float32 [n, 24 * 24 * 3], 0-255.
        shapes: Cut to what is drawn, grey, of zero mean and unit norm, float32 [n, 24 * 24].
    """

    def __init__(self, pictures: Iterable[Image.Image]) -> None:
        pairs = [_normalised(picture) for picture in pictures]
        self.colours = np.stack([colours for colours, _ in pairs]) if pairs else np.zeros((0, _SIDE**2 * 3), np.float32)
        self.shapes = np.stack([shapes for _, shapes in pairs]) if pairs else np.zeros((0, _SIDE**2), np.float32)


def twins(pictures: Looks, others: Looks, *, colour_distance: float, shape_likeness: float) -> NDArray[np.bool_]:
    """Which of `pictures` [n] look like any of `others`.

    Args:
        pictures: What is judged.
        others: What it must not look like.
        colour_distance: Mean absolute difference per channel (0-255) below which two pictures are one.
        shape_likeness: Correlation of the shapes, of either sign, above which they are.
    """
    found = np.zeros(len(pictures.colours), dtype=np.bool_)
    for start in range(0, len(found), 512):
        part = slice(start, start + 512)
        shapes = np.abs(pictures.shapes[part] @ others.shapes.T).max(axis=1, initial=0.0)
        found[part] = (shapes > shape_likeness) | _close(pictures.colours[part], others.colours, colour_distance)
    return found


def _close(colours: Floats, others: Floats, limit: float) -> NDArray[np.bool_]:
    """Rows within `limit` of any other. Coarse pictures pick candidates: they differ by no more than the fine ones."""
    found = np.zeros(len(colours), dtype=np.bool_)
    mine, theirs = _coarse(colours), _coarse(others)
    for row in range(len(colours)):
        candidates = others[np.abs(theirs - mine[row]).mean(axis=1) < limit]
        found[row] = bool((np.abs(candidates - colours[row]).mean(axis=1) < limit).any())
    return found


def _coarse(colours: Floats) -> Floats:
    """Means over blocks of 4 x 4 pixels, float32 [n, 6 * 6 * 3]."""
    blocks = colours.reshape(len(colours), _SIDE // 4, 4, _SIDE // 4, 4, 3)
    coarse: Floats = blocks.mean(axis=(2, 4)).reshape(len(colours), (_SIDE // 4) ** 2 * 3)
    return coarse


def _normalised(picture: Image.Image) -> tuple[Floats, Floats]:
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=np.float32).reshape(-1)
    grey = ImageOps.grayscale(picture)
    pixels = np.asarray(grey, dtype=np.int16)
    drawn = np.argwhere(np.abs(pixels - pixels[0, 0]) > 24)
    if len(drawn):
        (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0) + 1
        grey = grey.crop((int(left), int(top), int(right), int(bottom)))
    shapes = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
    shapes = shapes - shapes.mean()
    return colours, shapes / max(float(np.linalg.norm(shapes)), 1e-6)
