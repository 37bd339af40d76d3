"""Maps from coarse public outlines: the outline of a country, and a dot that marks a place in its part of the world.

The projection is equirectangular, with longitudes scaled by the cosine of the latitude in the middle.
"""

from __future__ import annotations

import ast
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from gme_data.structured import read_json

Ring = tuple[tuple[float, float], ...]
"""A closed line of (longitude, latitude) in degrees."""

_SUPERSAMPLING = 4
"""Maps are drawn at a multiple of their size and scaled down, since Pillow draws polygons without anti-aliasing."""
_MIN_POINTS = 8
"""Outlines of fewer points are boxes that nobody would recognise."""
_LOCATOR_DEGREES = 36.0
"""Degrees of latitude from the middle of a locator to its border."""
_SEA, _LAND, _OUTLINE, _HIGHLIGHT, _DOT = "#dbe9f4", "#b9c7a5", "#5f7050", "#e08a3c", "#c4161c"


@cache
def read_outlines() -> dict[str, tuple[Ring, ...]]:
    """Returns outer rings by ISO 3166 alpha-2 code in lower case, for countries with a recognisable outline."""
    outlines: dict[str, tuple[Ring, ...]] = {}
    for path in sorted((Path(str(files("countryinfo"))) / "data").glob("*.json")):
        raw = read_json(path, dict[str, Any])
        iso, rings = raw.get("ISO", {}).get("alpha2", ""), _rings(raw.get("geoJSON"))
        if iso and sum(len(ring) for ring in rings) >= _MIN_POINTS:
            outlines[str(iso).lower()] = rings
    return outlines


def _rings(shape: Any) -> tuple[Ring, ...]:  # noqa: ANN401 - some files hold a dict, some its Python literal
    if isinstance(shape, str):
        shape = ast.literal_eval(shape) if shape.startswith("{") else None
    if not shape:
        return ()
    polygons: list[Any] = []
    for feature in shape["features"]:
        geometry = feature["geometry"]
        polygons += geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return tuple(tuple((float(x), float(y)) for x, y, *_ in polygon[0]) for polygon in polygons)


def draw_outline(rings: tuple[Ring, ...], size: int) -> Image.Image:
    """Draws the outline of one country, filling a square of `size` pixels."""
    rings = _unwrap(rings)
    points = [point for ring in rings for point in ring]
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    longitude_scale = math.cos(math.radians((south + north) / 2))
    extent = max((east - west) * longitude_scale, north - south) * 1.12  # with a margin around the outline
    side = size * _SUPERSAMPLING
    middle, scales = ((west + east) / 2, (south + north) / 2), (longitude_scale * side / extent, side / extent)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for ring in rings:
        _polygon(draw, ring, middle, scales, _LAND)
    return image.resize((size, size), Image.Resampling.BOX)


def draw_locator(coordinates: tuple[float, float], iso: str, size: int) -> Image.Image:
    """Draws the world around a place, its outline highlighted if there is one, and a dot on the place.

    Args:
        coordinates: Latitude and longitude of the place in degrees.
        iso: ISO code of the place.
        size: Side of the picture in pixels.
    """
    latitude, longitude = coordinates
    side = size * _SUPERSAMPLING
    scale = side / (2 * _LOCATOR_DEGREES)
    # Near the poles the true cosine would show all longitudes at once.
    scales = (scale * max(math.cos(math.radians(latitude)), 0.3), scale)
    image = Image.new("RGB", (side, side), _SEA)
    draw = ImageDraw.Draw(image)
    # The outline of the place is drawn last, so that no neighbour's border lies on it.
    for code, rings in sorted(read_outlines().items(), key=lambda entry: entry[0] == iso):
        for ring in rings:
            for turn in _turns(ring, longitude, side / 2 / scales[0]):
                _polygon(draw, ring, (longitude - turn, latitude), scales, _HIGHLIGHT if code == iso else _LAND)
    middle_pixel, radius = side / 2, side / 28
    box = (middle_pixel - radius, middle_pixel - radius, middle_pixel + radius, middle_pixel + radius)
    draw.ellipse(box, fill=_DOT, outline="white", width=_SUPERSAMPLING)
    return image.resize((size, size), Image.Resampling.BOX)


def _turns(ring: Ring, longitude: float, reach: float) -> list[float]:
    """Returns the full turns, in degrees, that bring a ring within `reach` of a longitude; Antarctica has several."""
    west, east = _longitudes(ring)
    return [
        turn for turn in (-360.0, 0.0, 360.0) if west + turn < longitude + reach and east + turn > longitude - reach
    ]


@cache
def _longitudes(ring: Ring) -> tuple[float, float]:
    return min(x for x, _ in ring), max(x for x, _ in ring)


def _unwrap(rings: tuple[Ring, ...]) -> tuple[Ring, ...]:
    """Returns rings with western longitudes moved east where a country crosses the date line."""
    longitudes = [x for ring in rings for x, _ in ring]
    if max(longitudes) - min(longitudes) < 180:
        return rings
    return tuple(tuple((x + 360 if x < 0 else x, y) for x, y in ring) for ring in rings)


def _polygon(
    draw: ImageDraw.ImageDraw, ring: Ring, middle: tuple[float, float], scales: tuple[float, float], fill: str
) -> None:
    half = draw.im.size[0] / 2
    pixels = [(half + (x - middle[0]) * scales[0], half - (y - middle[1]) * scales[1]) for x, y in ring]
    draw.polygon(pixels, fill=fill, outline=_OUTLINE, width=_SUPERSAMPLING // 2)
