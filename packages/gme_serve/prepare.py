"""A request's items made ready and checked to the last detail, so that what waits for the model can't be bad.

Slow (texts are tokenised, pictures decoded), so it runs in threads, some items at a time. Knows limits and the model's
tokens; neither HTTP nor queues.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from tokenizers import Tokenizer

from gme_data.errors import FoundryError
from gme_data.images import open_image
from gme_embedder.processing.prepare import Preparer
from gme_serve.config import Limits
from gme_serve.errors import ApiError

_LOG = logging.getLogger(__name__)
_NUMBER = re.compile(r"^Item \d+: ")
"""Counts within what was prepared together; clients know the item by `param`."""
_WINDOW, _WINDOW_COST = 64, 2**17
"""Items and characters that are prepared at a time: some tenths of a second."""
_PIXELS_OF_A_CHARACTER = 64
"""Pixels that are decoded in the time in which a character is tokenised."""
_REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are no character."""


@dataclass(frozen=True, slots=True)
class Part:
    """An item as it came: `image` is encoded bytes or a data: URI in base64, `token_ids` stand for the text."""

    text: str | None = None
    title: str | None = None
    image: bytes | str | None = None
    token_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An item within the limits that need no token to be counted.

    Attributes:
        fields: What `Embedder.encode` is given.
        cost: What it takes to prepare it, in characters.
    """

    fields: dict[str, Any]
    cost: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the model will take, or some of its items.

    Attributes:
        items: What `Embedder.encode` is given.
        instruction: Of all items.
        tokens: What each item comes to, prompt and visual tokens included.
    """

    items: list[dict[str, Any]]
    instruction: str | None
    tokens: list[int]


def prepare(
    parts: Sequence[Part], instruction: str | None, params: Sequence[str], preparer: Preparer, limits: Limits
) -> Iterator[Prepared | None]:
    """A request checked and counted, window by window; one beyond the limit ends at the window where it passes it.

    Args:
        parts: The items, at least one.
        instruction: Of all items.
        params: What an error calls each item, such as ``input[0]``.
        preparer: Of the served model.
        limits: What is allowed.

    Yields:
        None after each window but the last, so that others have a turn; then the request.

    Raises:
        ApiError: 400; `param` says what it is about.
    """
    check_text(instruction, "instruction", limits.max_instruction_characters)
    opened = read_items(parts, params, preparer.tokenizer, limits)
    _check_tokens(len(opened) * prompt_tokens(preparer, instruction), limits)
    items, tokens = [item.fields for item in opened], list[int]()
    for window in windows([item.cost + len(instruction or "") for item in opened]):
        tokens += count_tokens(preparer, items[window], instruction, params[window])
        _check_tokens(sum(tokens), limits)
        yield Prepared(items, instruction, tokens) if len(tokens) == len(items) else None


def _check_tokens(tokens: int, limits: Limits) -> None:
    if tokens > limits.max_request_tokens:
        message = (
            f"The request has {tokens} tokens or more; this server takes {limits.max_request_tokens} in one "
            "request, each item with the prompt around it. Send several requests."
        )
        raise ApiError(400, message, code="max_tokens_per_request", param="input")


def read_items(parts: Sequence[Part], params: Sequence[str], tokenizer: Tokenizer, limits: Limits) -> list[Opened]:
    """The items as `Embedder.encode` takes them, within all limits that need no token to be counted.

    Args:
        parts: The items, at least one.
        params: What an error calls each item, such as ``input[0]``.
        tokenizer: Of the served model.
        limits: What is allowed.

    Raises:
        ApiError: 400; `param` is the item's.
    """
    items, all_pixels = [], 0
    for part, param in zip(parts, params, strict=True):
        text = part.text if part.token_ids is None else _text_of(part.token_ids, tokenizer, param)
        for written in (text, part.title):
            check_text(written, param, limits.max_characters)
        item: dict[str, Any] = {"text": text, "title": part.title}
        pixels = 0
        if part.image is not None:
            item["image"] = part.image if isinstance(part.image, bytes) else _decoded(part.image, param)
            pixels = _pixels(item["image"], param, limits)
        all_pixels += pixels
        if all_pixels > limits.max_request_pixels:
            message = f"{param}: with this picture the request has {all_pixels} pixels; this server takes "
            message += f"{limits.max_request_pixels} in one request. Send several requests or smaller pictures."
            raise ApiError(400, message, code="too_many_pixels", param=param)
        cost = len(text or "") + len(part.title or "") + pixels // _PIXELS_OF_A_CHARACTER
        items.append(Opened({name: value for name, value in item.items() if value is not None}, cost))
    return items


def windows(costs: Sequence[int]) -> Iterator[slice]:
    """Items that are prepared at a time, one at least; between two windows of a large request others have a turn."""
    start, sum_of_costs = 0, 0
    for number, cost in enumerate(costs):
        if number > start and (number - start == _WINDOW or sum_of_costs + cost > _WINDOW_COST):
            yield slice(start, number)
            start, sum_of_costs = number, 0
        sum_of_costs += cost
    yield slice(start, len(costs))


def prompt_tokens(preparer: Preparer, instruction: str | None) -> int:
    """Tokens that every item of a request costs, whatever it holds: those of the prompt around it.

    Raises:
        ApiError: 400; the instruction leaves no room for an item.
    """
    try:
        (planned,) = preparer.tokenise_prompts([{"text": "a"}], instruction)
    except FoundryError as error:
        raise _refused(error, "instruction") from error
    return len(planned.item.ids)


def count_tokens(
    preparer: Preparer, items: Sequence[dict[str, Any]], instruction: str | None, params: Sequence[str]
) -> list[int]:
    """Tokens of each item; their pictures are decoded to see that they are whole.

    The resized pictures are dropped again and made anew by `encode`: bytes may wait by the hundred, pixels may not.
    Several threads may share `preparer`: pictures without an id pass by its cache.

    Raises:
        ApiError: 400; `param` is the item's.
    """

    def refuse(number: int, error: FoundryError) -> NoReturn:
        raise _refused(error, params[number]) from error

    planned = preparer.tokenise_prompts(items, instruction, on_error=refuse)
    for item in planned:
        with _picture_of(params[item.number]):
            preparer.load_picture(item)
    return [len(item.item.ids) for item in planned]


def check_text(text: str | None, param: str, most: int) -> None:
    """Raise `ApiError` 400 for a text of more than `most` characters, or no valid Unicode."""
    if text is None:
        return
    if len(text) > most:
        message = f"{param}: a text of {len(text)} characters; this server takes {most}. Shorten it."
        raise ApiError(400, message, code="text_too_long", param=param)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair
        message = f"{param}: not valid Unicode: a lone surrogate at character {error.start}."
        raise ApiError(400, message, code="bad_text", param=param) from error


def _text_of(token_ids: Sequence[int], tokenizer: Tokenizer, param: str) -> str:
    """The text that token ids of the served model's tokenizer stand for."""
    size = tokenizer.get_vocab_size()
    unknown = next((id_ for id_ in token_ids if id_ >= size), None)
    if unknown is not None:
        message = f"{param}: there is no token {unknown}: the tokenizer of this model has {size}."
        raise ApiError(400, message, code="unknown_token", param=param)
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
    if _REPLACEMENT in text and tokenizer.encode(text, add_special_tokens=False).ids != list(token_ids):
        message = f"{param}: the token ids begin or end within a character. Cut texts, not their tokens."
        raise ApiError(400, message, code="bad_token_ids", param=param)
    return text


def _decoded(uri: str, param: str) -> bytes:
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{param}: the picture's base64 is damaged: {error}"
        raise ApiError(400, message, code="bad_image", param=param) from error


def _pixels(data: bytes, param: str, limits: Limits) -> int:
    """Width times height by the header alone: a picture that is too large is never decoded."""
    with _picture_of(param), open_image(data, "the picture") as image:
        width, height = image.size
    if max(width, height) > limits.max_side:
        message = f"{param}: {width}x{height} pixels; a side may have {limits.max_side}. Send a smaller picture."
        raise ApiError(400, message, code="side_too_long", param=param)
    if width * height > limits.max_pixels:
        message = f"{param}: {width}x{height} pixels; this server takes {limits.max_pixels}. Send a smaller picture."
        raise ApiError(400, message, code="too_many_pixels", param=param)
    return width * height


@contextmanager
def _picture_of(param: str) -> Iterator[None]:
    """Whatever a decoder raises over a stranger's bytes is about these bytes: it refuses the item, and nothing more."""
    try:
        yield
    except FoundryError as error:
        raise _refused(error, param) from error
    except Exception as error:
        _LOG.exception("A decoder failed in a way that nobody foresaw.")
        message = f"{param}: the picture can't be decoded ({type(error).__name__})."
        raise ApiError(400, message, code="bad_image", param=param) from error


def _refused(error: FoundryError, param: str) -> ApiError:
    what = _NUMBER.sub("", str(error))
    message = " ".join([f"{param}: {what}", *([error.hint] if error.hint else [])])
    return ApiError(400, message, code="bad_item", param=param)
