"""Pages have the size of the configuration and show their lines."""

from __future__ import annotations

from atlas.pages import Block, render_page


def test_pages_have_their_size_and_show_their_text():
    blocks = [Block("Geography", ("Location: here", "Coastline: 12 km"))]
    page = render_page("Somewhere", [], blocks, (320, 400))
    other = render_page("Somewhere", [], [Block("Geography", ("Location: here", "Coastline: 13 km"))], (320, 400))
    assert page.size == (320, 400)
    assert page.tobytes() != other.tobytes()
    assert page.tobytes() == render_page("Somewhere", [], blocks, (320, 400)).tobytes()
