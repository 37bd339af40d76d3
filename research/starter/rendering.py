"""Renders candidates as PNG: SVG drawings on a coloured background, and photographs at a smaller size."""

from __future__ import annotations

import resvg_py
from PIL import Image

from atlas.choice import seeded_hash
from gme_data.errors import FoundryError
from gme_data.images import decode_rgb, encode_png

_INKS = (
    "#1f2937", "#000000", "#b91c1c", "#c2410c", "#a16207", "#15803d", "#0f766e", "#0369a1",
    "#1d4ed8", "#6d28d9", "#a21caf", "#be185d", "#7c2d12", "#365314", "#334155", "#4c1d95",
)  # fmt: skip
_BACKGROUNDS = (
    "#ffffff", "#ffffff", "#ffffff", "#fef9c3", "#dbeafe",
    "#dcfce7", "#fce7f3", "#f3f4f6", "#ffedd5", "#ede9fe",
)  # fmt: skip


def draw_svg(svg: str, size: int, background: str = "#ffffff") -> bytes:
    """Renders an SVG as PNG of `size` x `size` pixels on a coloured background.

    Raises:
        FoundryError: The SVG cannot be drawn.
    """
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True
        )
    except (ValueError, RuntimeError) as error:
        raise FoundryError(f"a drawing cannot be rasterised: {error}") from error
    return encode_png(decode_rgb(bytes(png)))


def tint(svg: str, seed: int, *names: str) -> tuple[str, str]:
    """Returns ``(svg, background)`` with a dark ink and a light background chosen by `names`; one in six is swapped."""
    ink = _INKS[seeded_hash(seed, "ink", *names) % len(_INKS)]
    background = _BACKGROUNDS[seeded_hash(seed, "ground", *names) % len(_BACKGROUNDS)]
    if seeded_hash(seed, "swap", *names) % 6 == 0:
        ink, background = background, ink
    return svg.replace("currentColor", ink), background


def shrink(data: bytes, side: int, name: str) -> bytes:
    """Returns a picture on white, at most `side` pixels high and wide, as PNG."""
    image = decode_rgb(data, name)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode_png(image)
