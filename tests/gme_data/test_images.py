"""Pictures are stored once and found in every shard; what is no picture, damaged or too large is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from gme_data import images
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, ImageStore, decode_rgb, open_image, write_images


def png(size: tuple[int, int] = (8, 6), mode: str = "RGB", color: object = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")  # type: ignore[arg-type]
    return buffer.getvalue()


def test_images_round_trip_once_each(tmp_path: Path) -> None:
    records = [ImageRecord.from_bytes(png(color=c), source="s", licence="l") for c in ("red", "blue", "red")]
    write_images(tmp_path, records)
    store = ImageStore([tmp_path])
    assert len(store) == 2
    assert store.read(records[1].id) == records[1].bytes
    assert store.load(records[0].id).getpixel((0, 0)) == (255, 0, 0)
    assert store.size(records[0].id) == (records[0].width, records[0].height)
    assert records[1].id in store
    assert "nope" not in store
    assert None not in store
    with pytest.raises(FoundryError, match="No picture with id nope"):
        store.read("nope")


def test_pictures_are_found_in_every_shard_and_row_group(tmp_path: Path) -> None:
    records = [
        ImageRecord.from_bytes(png(size=(2 + n % 7, 3 + n), color=(n, 0, 0)), source="s", licence="l")
        for n in range(200)
    ]
    write_images(tmp_path / "one", records[:150])  # two row groups
    write_images(tmp_path / "other", records[100:])
    store = ImageStore([tmp_path / "one", tmp_path / "other"])
    assert len(store) == 200
    for record in records:
        assert store.read(record.id) == record.bytes
        assert store.size(record.id) == (record.width, record.height)
    assert len(ImageStore([])) == 0
    assert records[0].id not in ImageStore([])


def test_transparency_is_laid_on_white() -> None:
    assert decode_rgb(png(mode="RGBA", color=(0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_bad_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoundryError, match="not a readable picture"):
        open_image(b"<html>404</html>", "photo.jpg")
    with pytest.raises(FoundryError, match="damaged"):
        decode_rgb(png((64, 64), color="green")[:-30], "cut.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 40)
    with pytest.raises(FoundryError, match="8x6 pixels"):
        open_image(png(), "bomb.png")
