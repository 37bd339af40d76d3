"""Outlines fill their square, and locators mark the middle."""

from __future__ import annotations

from atlas.maps import draw_locator, draw_outline


def test_outlines_fill_their_square_across_the_date_line():
    box = (((178.0, -20.0), (-178.0, -20.0), (-178.0, -16.0), (178.0, -16.0)),)
    image = draw_outline(box, 64)
    assert image.getpixel((32, 32)) != (255, 255, 255)
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_locators_put_the_dot_in_the_middle():
    red, green, blue = draw_locator((46.8, 8.2), "ch", 72).getpixel((36, 36))
    assert red > 150 > green
    assert blue < 100
