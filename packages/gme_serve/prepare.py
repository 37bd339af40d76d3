"""A request's items made ready and checked to the last detail, so that what waits for the model can't be bad.

Slow (pictures are decoded), so it runs in threads. Knows limits and the model's tokens; neither HTTP nor queues.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gme_data.errors import FoundryError
from gme_data.images import open_image
from gme_embedder.prepare import Preparer
from gme_serve.config import Limits
from gme_serve.errors import ApiError


@dataclass(frozen=True, slots=True)
class Part:
    """An item as it came: `image` is encoded bytes or a data: URI in base64."""

    text: str | None = None
    title: str | None = None
    image: bytes | str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the model will take.

    Attributes:
        items: What `Embedder.encode` is given.
        instruction: Of all items.
        tokens: What they come to, prompt and visual tokens included.
    """

    items: list[dict[str, Any]]
    instruction: str | None
    tokens: int


def prepare(
    preparer: Preparer, limits: Limits, parts: Sequence[Part], instruction: str | None, places: Sequence[str]
) -> Prepared:
    """Check a request and count its tokens.

    The resized pictures are dropped again and made anew by `encode`: bytes may wait by the hundred, pixels may not.
    Several threads may share `preparer`: pictures without an id pass by its cache.

    Args:
        preparer: Of the served model.
        limits: What is allowed.
        parts: The items, at least one.
        instruction: Of all items.
        places: What an error calls each item, such as ``input[0]``.

    Raises:
        ApiError: 400; `param` is the item's place.
    """
    if len(parts) > limits.max_items:
        message = f"{len(parts)} items in one request; this server takes {limits.max_items}. Send several requests."
        raise ApiError(400, message, code="too_many_items", param="input")
    _check_text(instruction, "instruction", limits)
    items, tokens = [], 0
    for part, place in zip(parts, places, strict=True):
        item = _item(part, place, limits)
        try:
            (tokenised,) = preparer.tokenise([item], instruction)
        except FoundryError as error:
            raise _refused(error, place) from error
        items.append(item)
        tokens += len(tokenised.ids)
    return Prepared(items, instruction, tokens)


def _item(part: Part, place: str, limits: Limits) -> dict[str, Any]:
    for text in (part.text, part.title):
        _check_text(text, place, limits)
    item: dict[str, Any] = {"text": part.text, "title": part.title}
    if part.image is not None:
        item["image"] = part.image if isinstance(part.image, bytes) else _decoded(part.image, place)
        _check_pixels(item["image"], place, limits)
    return {name: value for name, value in item.items() if value is not None}


def _decoded(uri: str, place: str) -> bytes:
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            400, f"{place}: the picture's base64 is damaged: {error}", code="bad_image", param=place
        ) from error


def _check_pixels(data: bytes, place: str, limits: Limits) -> None:
    """By the header alone: a picture that is too large is never decoded."""
    try:
        with open_image(data, "the picture") as image:
            width, height = image.size
    except FoundryError as error:
        raise _refused(error, place) from error
    if width * height > limits.max_pixels:
        message = f"{place}: {width}x{height} pixels; this server takes {limits.max_pixels}. Send a smaller picture."
        raise ApiError(400, message, code="too_many_pixels", param=place)


def _check_text(text: str | None, place: str, limits: Limits) -> None:
    if text is None:
        return
    if len(text) > limits.max_characters:
        message = f"{place}: a text of {len(text)} characters; this server takes {limits.max_characters}. Shorten it."
        raise ApiError(400, message, code="text_too_long", param=place)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair
        message = f"{place}: not valid Unicode: a lone surrogate at character {error.start}."
        raise ApiError(400, message, code="bad_text", param=place) from error


def _refused(error: FoundryError, place: str) -> ApiError:
    what = str(error).removeprefix("Item 0: ")
    message = " ".join([f"{place}: {what}", *([error.hint] if error.hint else [])])
    return ApiError(400, message, code="bad_item", param=place)
