from __future__ import annotations

import pytest
from PIL import Image

from atlas.contact_sheet import contact_sheet
from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_sheet_for_every_task_type(small_atlas, tmp_path, task_type):
    shown = contact_sheet(small_atlas, task_type, tmp_path / "sheet.png", count=3)
    assert shown >= 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(2**20)) > 20


def test_the_html_sheet_is_self_contained(small_atlas, tmp_path):
    contact_sheet(small_atlas, "IT->I", tmp_path / "sheet.html", count=2)
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    assert "http" not in text


def test_bad_requests_say_what_would_do(small_atlas, tmp_path):
    with pytest.raises(FoundryError, match=r"Did you mean 'IT->I'") as caught:
        contact_sheet(small_atlas, "it->i", tmp_path / "sheet.png")
    assert "T->VD" in str(caught.value.hint)
    with pytest.raises(FoundryError, match=r"\.png or \.html"):
        contact_sheet(small_atlas, "IT->I", tmp_path / "sheet.pdf")
    with pytest.raises(FoundryError, match="No tasks"):
        contact_sheet(tmp_path, "IT->I", tmp_path / "sheet.png")
