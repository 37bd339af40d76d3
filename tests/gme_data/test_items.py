"""An item has a text, a picture or both, and a modality."""

from __future__ import annotations

import pytest

from gme_data.items import Item, Modality


def test_item_needs_something() -> None:
    assert Item("a").modality is Modality.TEXT
    assert Item("", "x").modality is Modality.FUSED
    assert Item(None, "x").modality is Modality.IMAGE
    with pytest.raises(ValueError, match="text, an image, or both"):
        Item()
