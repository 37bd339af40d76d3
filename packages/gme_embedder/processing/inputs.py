"""What a caller may hand over as an item, parsed to one shape: a text and a picture that is decoded when needed.

Knows kinds of input and their errors; nothing of tokens or patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gme_data.cells import CellError, is_missing, picture_cell
from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import MAX_BYTES, Images, array_to_rgb, load_pixels, open_image, to_rgb
from gme_data.items import Item

EmbedderInput = Item | Mapping[str, Any] | str | Image.Image | Path | bytes
"""A string, which is always text; a picture (PIL, the path of a file, encoded bytes); a dict with ``text`` and/or
``image`` (a picture, its path as a string, or an array [height, width] or [height, width, 3 or 4]); or an `Item` (its
picture is looked up in an `ImageStore`). A dict's ``title`` goes before its text, as in GME."""

FIELDS = ("text", "image", "title")
_EMPTY_ITEM = "An item needs a text, an image, or both."
_MAX_SHOWN, _CONTEXT = 200, 20
"""Characters of a path that an error shows, and of a text on either side of half a character."""
_PICTURE_HINT = "Give the path of a picture file, or its bytes: addresses are not fetched and base64 is not decoded."


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is not decoded yet.

    Attributes:
        key: Its id in a store, which stands for the same pixels always; None elsewhere.
        name: What errors call it.
        open: Reads its header.
    """

    key: str | None
    name: str
    open: Callable[[], Image.Image]

    def size(self) -> tuple[int, int]:
        """Returns height and width in pixels. Raises `FoundryError` for what is no picture, or too large."""
        image = self.open()
        return image.height, image.width

    def load(self) -> Image.Image:
        """Returns the picture in RGB. Raises `FoundryError` as `size`, and for a picture that is damaged or cut off."""
        return to_rgb(self.open(), self.name)


@dataclass(frozen=True, slots=True)
class ParsedItem:
    """The text of an item, its picture, or both."""

    text: str | None
    picture: Picture | None


def parse_item(item: EmbedderInput, images: Images | None) -> ParsedItem:
    """Returns the text and the picture of one input. None and the NaN or NA of data frames count as missing anywhere.

    Raises:
        FoundryError: Neither text nor picture, an unknown field or type, a text that UTF-8 can't hold, a missing file,
            an image id without a store.
    """
    if isinstance(item, str):
        return ParsedItem(_text_field("text", item), None)
    if isinstance(item, Item):
        return ParsedItem(
            _text_field("text", item.text), _stored_picture(item.image, images) if item.image is not None else None
        )
    if isinstance(item, Image.Image | Path | bytes):
        return ParsedItem(None, _picture(item))
    if _is_missing_value(item):
        raise FoundryError(_EMPTY_ITEM)
    if not isinstance(item, Mapping):
        raise FoundryError(
            f"An item must be a text, a picture, a dict or an Item, found {type(item).__name__}.",
            hint='A text with a picture is {"text": ..., "image": ...}.',
        )
    for field in item:
        if field not in FIELDS:
            raise FoundryError(
                f"Unknown field '{field}' of an item.{did_you_mean(str(field), FIELDS)}",
                hint="The fields of an item are text, title and image.",
            )
    title, text = (_text_field(field, item.get(field)) for field in ("title", "text"))
    image = _picture_field(item.get("image"))
    if text is None and image is None and title is None:
        raise FoundryError(_EMPTY_ITEM)
    if title is not None:
        text = f"{title} {text or ''}".strip()
    return ParsedItem(text, _picture(image) if image is not None else None)


def check_unicode(text: str, name: str) -> str:
    """Returns the text itself, if UTF-8 can hold it.

    Raises:
        FoundryError: It holds half of a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - _CONTEXT) : error.start + _CONTEXT]
        raise FoundryError(
            f"{name} has half of a character (a lone surrogate) at position {error.start}, in {around!a}.",
            hint='Cut texts between characters, or write text.encode("utf-16", "surrogatepass").decode("utf-16", '
            '"replace").',
        ) from error
    return text


def _text_field(field: str, value: object) -> str | None:
    if isinstance(value, str):
        return check_unicode(value, f"Field '{field}'")
    if _is_missing_value(value):
        return None
    raise FoundryError(
        f"Field '{field}' of an item must be a string, found {type(value).__name__}.",
        hint="A dict is one item: give a list of dicts, or a data frame, and not a dict of columns."
        if isinstance(value, Iterable)
        else "Numbers and dates have many spellings: write them out as the documents do.",
    )


def _picture_field(value: object) -> object:
    """Returns the picture of a dict; an empty cell has none, data sets of Hugging Face may keep its bytes and path."""
    if _is_missing_value(value) or (isinstance(value, str | bytes) and not value):
        return None
    if not isinstance(value, Mapping):
        return value
    try:
        return picture_cell(value)
    except CellError as error:
        raise FoundryError(f"Field 'image': {error}.") from error


def _is_missing_value(value: object) -> bool:
    """Tells whether a value is missing. The NA of pandas is told by its name, for its library may not be installed."""
    return is_missing(value) or type(value).__name__ in {"NAType", "NaTType"}


def _stored_picture(image_id: str, images: Images | None) -> Picture:
    if images is None:
        raise FoundryError(
            f"The item's picture {image_id} can't be looked up: no image store was given.",
            hint="Pass images=ImageStore([folder]).",
        )
    if image_id not in images:
        raise FoundryError(f"No picture with id {image_id} in the store.")
    return Picture(image_id, image_id, lambda: images.open(image_id))


def _picture(image: object) -> Picture:
    if isinstance(image, Image.Image):
        load_pixels(image)  # at once, since two threads must not decode a lazily opened picture together
        return Picture(None, "image", lambda: image)
    if isinstance(image, np.ndarray):
        pixels = array_to_rgb(image)
        return Picture(None, "image", lambda: pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return Picture(None, "image", lambda: open_image(data))
    if isinstance(image, str | Path):
        path = _existing_path(image)
        return Picture(None, str(path), lambda: open_image(_read_bytes(path), str(path)))
    raise FoundryError(
        f"Field 'image' must be a PIL picture, an array, a path or bytes, found {type(image).__name__}.",
        hint="A tensor [3, height, width] becomes an array by tensor.permute(1, 2, 0).numpy().",
    )


def _existing_path(image: str | Path) -> Path:
    shown = str(image) if len(str(image)) <= _MAX_SHOWN else f"{str(image)[:_MAX_SHOWN]}..."
    try:
        if Path(image).is_file():
            return Path(image)
    except (OSError, ValueError) as error:  # too long for a name, or with a NUL: encoded data, perhaps
        raise FoundryError(f"No path of a picture: {shown!r}: {error}", hint=_PICTURE_HINT) from error
    raise FoundryError(f"Picture not found: {shown}", hint=_PICTURE_HINT)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # a byte more than allowed is enough to be refused
    except OSError as error:
        raise FoundryError(f"Picture can't be read: {path}: {error.strerror}.") from error
