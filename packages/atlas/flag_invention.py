"""Flags of no place: fields, bands, crosses and charges put together at random, drawn in two styles and described.

Some 140 real flags are too few to learn what "three equal horizontal bands" looks like. The descriptions follow the
manner of the Factbook. Knows colours and shapes; whether a flag is like a held-out one is for others to judge.
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
_SHADES = {  # what a word means in the flat style, and the one shade of the outlined style
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
_SCALE = 4  # drawn so many times as large and made small
_FLAT, _OUTLINED = (72, 52), (60, 38)  # width and height in pixels, on a ground of 72 x 72
_SIDE = 72
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One coloured outline; coordinates in 0..1 of the flag's width and height, but circles and stars keep round."""

    kind: str
    colour: str
    points: tuple[Point, ...]
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Flag:
    """What is painted, the ground first, and what is said of it."""

    shapes: tuple[Shape, ...]
    description: str


def invent(seed: int, number: int) -> Flag:
    """The flag of a number."""
    rng = np.random.default_rng([seed, number])
    grounds: tuple[Callable[[np.random.Generator], Flag], ...] = (
        _bands,
        _bands,
        _bands,
        _field,
        _field,
        _cross,
        _split,
    )
    ground = grounds[rng.integers(len(grounds))](rng)
    if rng.random() < 0.25:
        return ground
    charge = _charge(rng, ground)
    return Flag((*ground.shapes, *charge.shapes), f"{ground.description}{charge.description}")


def _bands(rng: np.random.Generator) -> Flag:
    upright, count = rng.random() < 0.4, int(rng.choice([2, 3, 3, 3]))
    colours = _alternating(rng, count)
    shares = np.ones(count)
    kind = "equal "
    if count == 3 and rng.random() < 0.25:
        shares, kind = np.array([1.0, 2.0, 1.0]), ""
    edges = np.cumsum([0.0, *(shares / shares.sum())]).tolist()
    shapes = [_strip(colour, *edge, upright) for colour, edge in zip(colours, itertools.pairwise(edges), strict=True)]
    way = "vertical" if upright else "horizontal"
    wide = f", the middle band twice as {'wide' if upright else 'high'}" if not kind else ""
    return Flag(tuple(shapes), f"{_NUMBERS[count]} {kind}{way} bands of {_listed(colours)}{wide}")


def _strip(colour: str, start: float, end: float, upright: bool) -> Shape:
    box = ((start, 0.0), (end, 1.0)) if upright else ((0.0, start), (1.0, end))
    return Shape("box", colour, box)


def _field(rng: np.random.Generator) -> Flag:
    (colour,) = _some(rng, 1)
    said = f"{colour} field" if rng.random() < 0.5 else colour
    return Flag((Shape("box", colour, ((0, 0), (1, 1))),), said)


def _cross(rng: np.random.Generator) -> Flag:
    ground, colour = _some(rng, 2)
    field = Shape("box", ground, ((0, 0), (1, 1)))
    if rng.random() < 0.3:
        arms = tuple(
            Shape("polygon", colour, points)
            for points in (((0, 0), (0.14, 0), (1, 0.8), (1, 1), (0.86, 1), (0, 0.2)),
                           ((1, 0), (0.86, 0), (0, 0.8), (0, 1), (0.14, 1), (1, 0.2)))
        )  # fmt: skip
        return Flag((field, *arms), f"{ground} with a {colour} diagonal cross dividing it into four triangles")
    nordic = rng.random() < 0.6
    middle, half = (0.36 if nordic else 0.5), 0.09
    upright = Shape("box", colour, ((middle - half * 0.72, 0), (middle + half * 0.72, 1)))
    level = Shape("box", colour, ((0, 0.5 - half), (1, 0.5 + half)))
    shifted = ", its upright arm nearer the left side" if nordic else ""
    return Flag((field, upright, level), f"{ground} with a {colour} cross that reaches all edges{shifted}")


def _split(rng: np.random.Generator) -> Flag:
    upper, lower = _some(rng, 2)
    field = Shape("box", lower, ((0, 0), (1, 1)))
    rising = rng.random() < 0.5
    half = ((0, 0), (1, 0), (0, 1)) if rising else ((0, 0), (1, 0), (1, 1))
    way = f"{'rising' if rising else 'falling'} to the right"
    shapes = (field, Shape("polygon", upper, half))
    return Flag(shapes, f"divided by a diagonal {way}, {upper} above it and {lower} below")


def _charge(rng: np.random.Generator, ground: Flag) -> Flag:
    kinds = (_disk, _star, _crescent, _triangle, _canton, _stars)
    return kinds[rng.integers(len(kinds))](rng, {shape.colour for shape in ground.shapes})


def _disk(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour = _other(rng, taken)
    x, where = _place(rng)
    return Flag((Shape("disk", colour, ((x, 0.5),), 0.26),), f" with a large {colour} disk {where}")


def _star(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour = _other(rng, taken)
    x, where = _place(rng)
    return Flag((Shape("star", colour, ((x, 0.5),), 0.28),), f"; a {colour} five-pointed star {where}")


def _crescent(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour = _other(rng, taken)
    shapes = (Shape("crescent", colour, ((0.46, 0.5),), 0.25), Shape("star", colour, ((0.6, 0.5),), 0.12))
    return Flag(shapes, f" with a {colour} crescent and star in the center")


def _triangle(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour = _other(rng, taken)
    shape = Shape("polygon", colour, ((0, 0), (0.42, 0.5), (0, 1)))
    return Flag((shape,), f" with a {colour} isosceles triangle based on the left side")


def _canton(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour = _other(rng, taken)
    star = _other(rng, {colour})
    shapes = (Shape("box", colour, ((0, 0), (0.42, 0.5))), Shape("star", star, ((0.21, 0.25),), 0.17))
    return Flag(shapes, f"; a {colour} rectangle in the upper-left corner bears a {star} five-pointed star")


def _stars(rng: np.random.Generator, taken: set[str]) -> Flag:
    colour, count = _other(rng, taken), int(rng.integers(2, 6))
    level = rng.random() < 0.5
    turns = [2 * math.pi * star / count for star in range(count)]
    row = [(0.5 + (star - (count - 1) / 2) * 0.17, 0.5) for star in range(count)]
    spots = row if level else [(0.5 + 0.2 * math.sin(turn), 0.5 - 0.28 * math.cos(turn)) for turn in turns]
    shapes = tuple(Shape("star", colour, (spot,), 0.11) for spot in spots)
    arranged = "in a horizontal row" if level else "arranged in a circle"
    return Flag(shapes, f"; {_NUMBERS[count]} {colour} five-pointed stars {arranged} in the center")


def _place(rng: np.random.Generator) -> tuple[float, str]:
    return ((0.5, "in the center"), (0.5, "in the center"), (0.36, "shifted to the left"))[rng.integers(3)]


def _some(rng: np.random.Generator, count: int) -> list[str]:
    return [_COLOURS[place] for place in rng.permutation(len(_COLOURS))[:count]]


def _alternating(rng: np.random.Generator, count: int) -> list[str]:
    """Colours of bands; the outer ones are alike now and then."""
    colours = _some(rng, count)
    return [*colours[:2], colours[0]] if count == 3 and rng.random() < 0.35 else colours


def _other(rng: np.random.Generator, taken: set[str]) -> str:
    left = [colour for colour in _COLOURS if colour not in taken]
    return left[rng.integers(len(left))]


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])}{',' if len(words) > 2 else ''} and {words[-1]}"


def draw_flat(flag: Flag, seed: int) -> Image.Image:
    """Rounded corners, no outline, one of several shades of each colour."""
    rng = np.random.default_rng([seed, 1])
    shade = {colour: shades[rng.integers(len(shades))] for colour, (shades, _) in _SHADES.items()}
    cloth = _cloth(flag, shade, _FLAT)
    mask = Image.new("L", cloth.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *cloth.size), radius=8 * _SCALE, fill=255)
    return _hung(cloth, mask)


def draw_outlined(flag: Flag, _seed: int) -> Image.Image:
    """Smaller, with a black outline, one shade of each colour."""
    cloth = _cloth(flag, {colour: shade for colour, (_, shade) in _SHADES.items()}, _OUTLINED)
    ImageDraw.Draw(cloth).rectangle((0, 0, cloth.width - 1, cloth.height - 1), outline="#000000", width=2 * _SCALE)
    return _hung(cloth, Image.new("L", cloth.size, 255))


def _cloth(flag: Flag, shade: dict[str, str], size: tuple[int, int]) -> Image.Image:
    width, height = size[0] * _SCALE, size[1] * _SCALE
    cloth = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(cloth)
    for shape in flag.shapes:
        points = [(x * width, y * height) for x, y in shape.points]
        _paint(pen, shape, points, shape.radius * height, shade[shape.colour], cloth)
    return cloth


def _paint(
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
        moon = Image.new("L", cloth.size, 0)
        half = ImageDraw.Draw(moon)
        half.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        shift, inner = radius * 0.35, radius * 0.8
        half.ellipse((x + shift - inner, y - inner, x + shift + inner, y + inner), fill=0)
        cloth.paste(fill, (0, 0), moon)


def _star_points(x: float, y: float, radius: float) -> list[Point]:
    radii = [radius if corner % 2 == 0 else radius * 0.4 for corner in range(10)]
    angles = [math.pi * corner / 5 for corner in range(10)]
    return [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _hung(cloth: Image.Image, mask: Image.Image) -> Image.Image:
    ground = Image.new("RGB", (_SIDE * _SCALE, _SIDE * _SCALE), "#ffffff")
    ground.paste(cloth, ((ground.width - cloth.width) // 2, (ground.height - cloth.height) // 2), mask)
    return ground.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
