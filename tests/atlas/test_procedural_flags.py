"""Procedural flags look like their descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.procedural_flags import _SHADES, draw_flat, draw_outlined, generate_flag


def test_bands_have_the_colours_of_the_description_in_that_order() -> None:
    flags = [generate_flag(17, number) for number in range(200)]
    horizontal = [flag for flag in flags if "equal horizontal bands" in flag.description]
    horizontal = [flag for flag in horizontal if {shape.kind for shape in flag.shapes} == {"box"}]
    assert len(horizontal) > 3
    for flag in horizontal:
        drawn = np.asarray(draw_outlined(flag, 0), dtype=int)
        listed = flag.description.partition(" of ")[2].replace(", and ", ", ").replace(" and ", ", ")
        for band, colour in enumerate(listed.split(", ")):
            row = 18 + int(36 * (band + 0.5) / len(flag.shapes))
            rgb = [int(_SHADES[colour][1][at : at + 2], 16) for at in (1, 3, 5)]
            np.testing.assert_allclose(drawn[row, 12], rgb, atol=3)


@pytest.mark.parametrize("draw", [draw_flat, draw_outlined])
def test_a_flag_is_drawn_the_same_each_time_and_unlike_others(draw) -> None:
    first, second = (np.asarray(draw(generate_flag(17, number), 17)) for number in (0, 1))
    assert (first == np.asarray(draw(generate_flag(17, 0), 17))).all()
    assert (first != second).any()
