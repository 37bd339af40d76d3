"""Procedural flags: random fields, bands, crosses and charges, drawn in two styles and described in words.

Some 140 real flags are too few to learn what "three equal horizontal bands" looks like. The descriptions are written in
the style of the Factbook. Callers drop the flags that look like a held-out one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
LICENCE = "CC0-1.0"
_SHADES = {  # shades of each colour in the flat style, and its one shade in the outlined style
    "red": (("#ce1124", "#d00c33", "#ed1b2f", "#a81b20"), "#d22f27"),
    "green": (("#007a3d", "#009543", "#00966e", "#28b244"), "#5c9e31"),
    "blue": (("#0039a6", "#22408c", "#265fb5", "#002680"), "#1e50a0"),
    "light blue": (("#75aadb", "#0098c3", "#4d8edb", "#5eb6e4"), "#61b2e4"),
    "yellow": (("#fecb00", "#ffce00", "#fcd116", "#f9df17"), "#fcea2b"),
    "orange": (("#ff8200", "#f47920", "#ff9a42"), "#e27022"),
    "white": (("#eeeeee",), "#ffffff"),
    "black": (("#141414", "#000000"), "#000000"),
    "maroon": (("#8a1538", "#7c0a2d"), "#92140c"),
}
_COLOURS = tuple(_SHADES)
_SUPERSAMPLING = 4
_FLAT_SIZE, _OUTLINED_SIZE = (72, 52), (60, 38)
"""Width and height of a flag in pixels, in each style."""
_SIDE = 72
"""Side of the white square that a flag is drawn on, in pixels."""
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One coloured shape.

    Points are fractions (0 to 1) of the width and height of the flag. A radius is a fraction of the height in both
    directions, so that circles and stars are not distorted.
    """

    kind: str
    colour: str
    points: tuple[Point, ...]
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Flag:
    """The shapes of a flag, in the order in which they are painted, and its description."""

    shapes: tuple[Shape, ...]
    description: str


def generate_flag(seed: int, number: int) -> Flag:
    """Returns flag number `number`: a background, and for three of four a charge on it."""
    # A generator for each number, so that a flag doesn't depend on how many were generated before it.
    rng = np.random.default_rng([seed, number])
    backgrounds: tuple[Callable[[np.random.Generator], Flag], ...] = (
        _bands,
        _bands,
        _bands,
        _field,
        _field,
        _cross,
        _split,
    )
    background = backgrounds[rng.integers(len(backgrounds))](rng)
    if rng.random() < 0.25:
        return background
    charge = _charge(rng, background)
    return Flag((*background.shapes, *charge.shapes), f"{background.description}{charge.description}")


def _bands(rng: np.random.Generator) -> Flag:
    vertical, count = rng.random() < 0.4, int(rng.choice([2, 3, 3, 3]))
    colours = _alternating(rng, count)
    shares = np.ones(count)
    kind = "equal "
    if count == 3 and rng.random() < 0.25:
        shares, kind = np.array([1.0, 2.0, 1.0]), ""
    edges = np.cumsum([0.0, *(shares / shares.sum())]).tolist()
    shapes = []
    for colour, (start, end) in zip(colours, itertools.pairwise(edges), strict=True):
        box = ((start, 0.0), (end, 1.0)) if vertical else ((0.0, start), (1.0, end))
        shapes.append(Shape("box", colour, box))
    direction = "vertical" if vertical else "horizontal"
    listed = f"{', '.join(colours[:-1])}{',' if len(colours) > 2 else ''} and {colours[-1]}"
    widths = f", the middle band twice as {'wide' if vertical else 'high'}" if not kind else ""
    return Flag(tuple(shapes), f"{_NUMBERS[count]} {kind}{direction} bands of {listed}{widths}")


def _field(rng: np.random.Generator) -> Flag:
    (colour,) = _distinct_colours(rng, 1)
    description = f"{colour} field" if rng.random() < 0.5 else colour
    return Flag((Shape("box", colour, ((0, 0), (1, 1))),), description)


def _cross(rng: np.random.Generator) -> Flag:
    background, colour = _distinct_colours(rng, 2)
    field = Shape("box", background, ((0, 0), (1, 1)))
    if rng.random() < 0.3:
        arms = tuple(
            Shape("polygon", colour, points)
            for points in (((0, 0), (0.14, 0), (1, 0.8), (1, 1), (0.86, 1), (0, 0.2)),
                           ((1, 0), (0.86, 0), (0, 0.8), (0, 1), (0.14, 1), (1, 0.2)))
        )  # fmt: skip
        return Flag((field, *arms), f"{background} with a {colour} diagonal cross dividing it into four triangles")
    nordic = rng.random() < 0.6
    middle, half = (0.36 if nordic else 0.5), 0.09
    vertical = Shape("box", colour, ((middle - half * 0.72, 0), (middle + half * 0.72, 1)))
    horizontal = Shape("box", colour, ((0, 0.5 - half), (1, 0.5 + half)))
    shifted = ", its upright arm nearer the left side" if nordic else ""
    return Flag((field, vertical, horizontal), f"{background} with a {colour} cross that reaches all edges{shifted}")


def _split(rng: np.random.Generator) -> Flag:
    upper, lower = _distinct_colours(rng, 2)
    field = Shape("box", lower, ((0, 0), (1, 1)))
    rising = rng.random() < 0.5
    half = ((0, 0), (1, 0), (0, 1)) if rising else ((0, 0), (1, 0), (1, 1))
    direction = f"{'rising' if rising else 'falling'} to the right"
    shapes = (field, Shape("polygon", upper, half))
    return Flag(shapes, f"divided by a diagonal {direction}, {upper} above it and {lower} below")


def _charge(rng: np.random.Generator, background: Flag) -> Flag:
    kinds = (_disk, _star, _crescent, _triangle, _canton, _stars)
    return kinds[rng.integers(len(kinds))](rng, {shape.colour for shape in background.shapes})


def _disk(rng: np.random.Generator, background: set[str]) -> Flag:
    colour = _contrasting(rng, background)
    x, where = _position(rng)
    return Flag((Shape("disk", colour, ((x, 0.5),), 0.26),), f" with a large {colour} disk {where}")


def _star(rng: np.random.Generator, background: set[str]) -> Flag:
    colour = _contrasting(rng, background)
    x, where = _position(rng)
    return Flag((Shape("star", colour, ((x, 0.5),), 0.28),), f"; a {colour} five-pointed star {where}")


def _crescent(rng: np.random.Generator, background: set[str]) -> Flag:
    colour = _contrasting(rng, background)
    shapes = (Shape("crescent", colour, ((0.46, 0.5),), 0.25), Shape("star", colour, ((0.6, 0.5),), 0.12))
    return Flag(shapes, f" with a {colour} crescent and star in the center")


def _triangle(rng: np.random.Generator, background: set[str]) -> Flag:
    colour = _contrasting(rng, background)
    shape = Shape("polygon", colour, ((0, 0), (0.42, 0.5), (0, 1)))
    return Flag((shape,), f" with a {colour} isosceles triangle based on the left side")


def _canton(rng: np.random.Generator, background: set[str]) -> Flag:
    colour = _contrasting(rng, background)
    star = _contrasting(rng, {colour})
    shapes = (Shape("box", colour, ((0, 0), (0.42, 0.5))), Shape("star", star, ((0.21, 0.25),), 0.17))
    return Flag(shapes, f"; a {colour} rectangle in the upper-left corner bears a {star} five-pointed star")


def _stars(rng: np.random.Generator, background: set[str]) -> Flag:
    colour, count = _contrasting(rng, background), int(rng.integers(2, 6))
    in_row = rng.random() < 0.5
    turns = [2 * math.pi * star / count for star in range(count)]
    row = [(0.5 + (star - (count - 1) / 2) * 0.17, 0.5) for star in range(count)]
    positions = row if in_row else [(0.5 + 0.2 * math.sin(turn), 0.5 - 0.28 * math.cos(turn)) for turn in turns]
    shapes = tuple(Shape("star", colour, (position,), 0.11) for position in positions)
    arrangement = "in a horizontal row" if in_row else "arranged in a circle"
    return Flag(shapes, f"; {_NUMBERS[count]} {colour} five-pointed stars {arrangement} in the center")


def _position(rng: np.random.Generator) -> tuple[float, str]:
    return ((0.5, "in the center"), (0.5, "in the center"), (0.36, "shifted to the left"))[rng.integers(3)]


def _distinct_colours(rng: np.random.Generator, count: int) -> list[str]:
    return [_COLOURS[index] for index in rng.permutation(len(_COLOURS))[:count]]


def _alternating(rng: np.random.Generator, count: int) -> list[str]:
    """Returns the colours of bands; of three, the outer ones are the same now and then."""
    colours = _distinct_colours(rng, count)
    return [*colours[:2], colours[0]] if count == 3 and rng.random() < 0.35 else colours


def _contrasting(rng: np.random.Generator, background: set[str]) -> str:
    colours = [colour for colour in _COLOURS if colour not in background]
    return colours[rng.integers(len(colours))]


def draw_flat(flag: Flag, seed: int) -> Image.Image:
    """Draws a flag with rounded corners and no outline, in one of several shades of each colour."""
    rng = np.random.default_rng([seed, 1])
    shade = {colour: shades[rng.integers(len(shades))] for colour, (shades, _) in _SHADES.items()}
    cloth = _paint(flag, shade, _FLAT_SIZE)
    mask = Image.new("L", cloth.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *cloth.size), radius=8 * _SUPERSAMPLING, fill=255)
    return _on_white(cloth, mask)


def draw_outlined(flag: Flag, _seed: int) -> Image.Image:
    """Draws a smaller flag with a black outline, in one shade of each colour.

    The seed is not used; callers draw both styles in one way.
    """
    cloth = _paint(flag, {colour: shade for colour, (_, shade) in _SHADES.items()}, _OUTLINED_SIZE)
    ImageDraw.Draw(cloth).rectangle(
        (0, 0, cloth.width - 1, cloth.height - 1), outline="#000000", width=2 * _SUPERSAMPLING
    )
    return _on_white(cloth, Image.new("L", cloth.size, 255))


def _paint(flag: Flag, shade: dict[str, str], size: tuple[int, int]) -> Image.Image:
    width, height = size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING
    cloth = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(cloth)
    for shape in flag.shapes:
        points = [(x * width, y * height) for x, y in shape.points]
        _paint_shape(pen, shape, points, shape.radius * height, shade[shape.colour], cloth)
    return cloth


def _paint_shape(
    pen: ImageDraw.ImageDraw, shape: Shape, points: list[Point], radius: float, fill: str, cloth: Image.Image
) -> None:
    x, y = points[0]
    if shape.kind == "box":
        pen.rectangle((*points[0], *points[1]), fill=fill)
    elif shape.kind == "polygon":
        pen.polygon(points, fill=fill)
    elif shape.kind == "star":
        pen.polygon(_star_points(x, y, radius), fill=fill)
    elif shape.kind == "disk":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        # A crescent is a disk less a smaller one beside it. The smaller one must show what lies below: hence a mask.
        mask = Image.new("L", cloth.size, 0)
        mask_pen = ImageDraw.Draw(mask)
        mask_pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        shift, inner = radius * 0.35, radius * 0.8
        mask_pen.ellipse((x + shift - inner, y - inner, x + shift + inner, y + inner), fill=0)
        cloth.paste(fill, (0, 0), mask)


def _star_points(x: float, y: float, radius: float) -> list[Point]:
    radii = [radius if corner % 2 == 0 else radius * 0.4 for corner in range(10)]
    angles = [math.pi * corner / 5 for corner in range(10)]
    return [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _on_white(cloth: Image.Image, mask: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (_SIDE * _SUPERSAMPLING, _SIDE * _SUPERSAMPLING), "#ffffff")
    canvas.paste(cloth, ((canvas.width - cloth.width) // 2, (canvas.height - cloth.height) // 2), mask)
    return canvas.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
