"""What a caller may hand over as an item, brought to one shape: a text and a picture that is decoded when needed.

Knows kinds of input and their errors; knows nothing of tokens or patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import ImageStore, open_image, to_rgb
from gme_data.items import Item

EmbedderInput = Item | Mapping[str, Any] | str
"""An `Item` (its picture is looked up in an `ImageStore`), a dict with ``text`` and/or ``image`` (a PIL picture, a
path or encoded bytes), or a string, which is always text. A dict's ``title`` goes before its text, as in GME."""

_FIELDS = ("text", "image", "title")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture not decoded yet.

    Attributes:
        key: Its id where it has one: the same key, the same pixels.
        name: For errors.
        open: Reads its header.
    """

    key: str | None
    name: str
    open: Callable[[], Image.Image]

    def size(self) -> tuple[int, int]:
        """Height and width in pixels. Raises `FoundryError` for what is no picture, or too large."""
        image = self.open()
        return image.height, image.width

    def load(self) -> Image.Image:
        """The picture in RGB. Raises `FoundryError` as `size`, and for a picture that is damaged or cut off."""
        return to_rgb(self.open(), self.name)


@dataclass(frozen=True, slots=True)
class Source:
    """A text, a picture, or both."""

    text: str | None
    picture: Picture | None


def as_source(item: EmbedderInput, images: ImageStore | None) -> Source:
    """Bring one input to a `Source`.

    Raises:
        FoundryError: Neither text nor picture, an unknown field or type, a missing file, an image id without a store.
    """
    if isinstance(item, str):
        return Source(item, None)
    if isinstance(item, Item):
        return Source(item.text, _stored(item.image, images) if item.image is not None else None)
    if not isinstance(item, Mapping):
        raise FoundryError(f"An item must be an Item, a dict or a text, found {type(item).__name__}.")
    for field in item:
        if field not in _FIELDS:
            raise FoundryError(f"Unknown field '{field}' of an item.{did_you_mean(str(field), _FIELDS)}")
    title, text, image = (item.get(field) for field in ("title", "text", "image"))
    if text is None and image is None and title is None:
        raise FoundryError("An item needs a text, an image, or both.")
    for field, value in (("title", title), ("text", text)):
        if value is not None and not isinstance(value, str):
            raise FoundryError(f"Field '{field}' of an item must be a string, found {type(value).__name__}.")
    if title is not None:
        text = f"{title} {text or ''}".strip()
    return Source(text, _given(image) if image is not None else None)


def _stored(image_id: str, images: ImageStore | None) -> Picture:
    if images is None:
        raise FoundryError(
            f"The item's picture {image_id} can't be looked up: no image store was given.",
            hint="Pass images=ImageStore([folder]).",
        )
    if image_id not in images:
        raise FoundryError(f"No picture with id {image_id} in the store.")
    return Picture(image_id, image_id, lambda: images.open(image_id))


def _given(image: object) -> Picture:
    if isinstance(image, Image.Image):
        _load(image)
        return Picture(None, "image", lambda: image)
    if isinstance(image, bytes):
        return Picture(None, "image", lambda: open_image(image))
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            raise FoundryError(f"Picture not found: {path}", hint="Give the path of an existing picture file.")
        return Picture(None, str(path), lambda: open_image(path.read_bytes(), str(path)))
    raise FoundryError(f"Field 'image' must be a PIL picture, a path or bytes, found {type(image).__name__}.")


def _load(image: Image.Image) -> None:
    """Have a lazily opened picture decoded now: two threads must not do it at once."""
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise FoundryError(f"image: the picture is damaged: {error}") from error
