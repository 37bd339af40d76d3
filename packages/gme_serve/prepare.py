"""Prepares and fully checks the items of a request, so that no request that waits for the model can fail there.

Texts are tokenised and pictures decoded, which takes long, so it runs in threads, some items at a time. Knows limits
and the tokens of the model; neither HTTP nor queues.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from tokenizers import Tokenizer

from gme_data.errors import FoundryError
from gme_data.images import open_image
from gme_embedder.processing.prepare import Preparer
from gme_serve.config import RequestLimits
from gme_serve.errors import ApiError
from gme_serve.items import CheckedItem, Prepared, RequestItem

_LOG = logging.getLogger(__name__)
_ITEM_NUMBER = re.compile(r"^Item \d+: ")
"""The number in an error counts items within a window, so it is removed: `param` names the item to clients."""
_WINDOW, _WINDOW_COST = 64, 2**17
"""Items and characters that are prepared at a time, which takes some tenths of a second."""
_PIXELS_PER_CHARACTER = 64
"""Pixels that are decoded in the time that a character takes to be tokenised."""
_REPLACEMENT = "\ufffd"
"""The character that a tokenizer decodes incomplete bytes to."""


def prepare(
    items: Sequence[RequestItem],
    instruction: str | None,
    params: Sequence[str],
    preparer: Preparer,
    limits: RequestLimits,
) -> Iterator[Prepared | None]:
    """Check a request and count its tokens, window by window, up to the window in which it exceeds a limit.

    Args:
        items: The items, at least one.
        instruction: Instruction of all items.
        params: Name of each item in errors, such as ``input[0]``.
        preparer: Preparer of the served model.
        limits: Limits of requests.

    Yields:
        None after each window but the last, so that other requests get a turn; then the prepared request.

    Raises:
        ApiError: 400; `param` names the item or field.
    """
    check_text(instruction, "instruction", limits.max_instruction_characters)
    checked = read_items(items, params, preparer.tokenizer, limits)
    # The prompt alone may exceed the limit; a request of many short items is refused before any is tokenised.
    _check_tokens(len(checked) * prompt_tokens(preparer, instruction), limits)
    fields, tokens = [item.fields for item in checked], list[int]()
    for window in windows([item.cost + len(instruction or "") for item in checked]):
        tokens += count_tokens(preparer, fields[window], instruction, params[window])
        _check_tokens(sum(tokens), limits)
        yield Prepared(fields, instruction, tokens) if len(tokens) == len(fields) else None


def _check_tokens(tokens: int, limits: RequestLimits) -> None:
    if tokens > limits.max_request_tokens:
        message = (
            f"The request has {tokens} tokens or more; this server takes {limits.max_request_tokens} in one "
            "request, each item with the prompt around it. Send several requests."
        )
        raise ApiError(400, message, code="max_tokens_per_request", param="input")


def read_items(
    items: Sequence[RequestItem], params: Sequence[str], tokenizer: Tokenizer, limits: RequestLimits
) -> list[CheckedItem]:
    """Convert items to what `Embedder.encode` takes, and check all limits but those on tokens.

    Args:
        items: The items, at least one.
        params: Name of each item in errors, such as ``input[0]``.
        tokenizer: Tokenizer of the served model.
        limits: Limits of requests.

    Raises:
        ApiError: 400; `param` names the item.
    """
    checked, all_pixels = [], 0
    for item, param in zip(items, params, strict=True):
        text = item.text if item.token_ids is None else _decode_token_ids(item.token_ids, tokenizer, param)
        for written in (text, item.title):
            check_text(written, param, limits.max_characters)
        fields: dict[str, Any] = {"text": text, "title": item.title}
        pixels = 0
        if item.image is not None:
            fields["image"] = item.image if isinstance(item.image, bytes) else _decode_data_uri(item.image, param)
            pixels = _count_pixels(fields["image"], param, limits)
        all_pixels += pixels
        if all_pixels > limits.max_request_pixels:
            message = f"{param}: with this picture the request has {all_pixels} pixels; this server takes "
            message += f"{limits.max_request_pixels} in one request. Send several requests or smaller pictures."
            raise ApiError(400, message, code="too_many_pixels", param=param)
        cost = len(text or "") + len(item.title or "") + pixels // _PIXELS_PER_CHARACTER
        checked.append(CheckedItem({name: value for name, value in fields.items() if value is not None}, cost))
    return checked


def windows(costs: Sequence[int]) -> Iterator[slice]:
    """Split items by their costs into windows of at least one item; between two windows other requests get a turn."""
    start, sum_of_costs = 0, 0
    for number, cost in enumerate(costs):
        if number > start and (number - start == _WINDOW or sum_of_costs + cost > _WINDOW_COST):
            yield slice(start, number)
            start, sum_of_costs = number, 0
        sum_of_costs += cost
    yield slice(start, len(costs))


def prompt_tokens(preparer: Preparer, instruction: str | None) -> int:
    """Count the tokens of the shortest item under an instruction, nearly all of which are the prompt's.

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
    """Count the tokens of each item, and decode its picture to find damaged ones.

    Several threads may share `preparer`, since pictures without an id are not put into its cache.

    Raises:
        ApiError: 400; `param` names the item.
    """
    # `encode` decodes and resizes the pictures once more: hundreds of requests may wait with their encoded bytes in
    # memory, but not with their pixels.

    def refuse(number: int, error: FoundryError) -> NoReturn:
        raise _refused(error, params[number]) from error

    planned = preparer.tokenise_prompts(items, instruction, on_error=refuse)
    for item in planned:
        # The header was read before; only decoding shows that the pixels are all there.
        with _errors_of_picture(params[item.number]):
            preparer.load_picture(item)
    return [len(item.item.ids) for item in planned]


def check_text(text: str | None, param: str, most: int) -> None:
    """Raise `ApiError` 400 for a text of more than `most` characters, or one that is no valid Unicode."""
    if text is None:
        return
    if len(text) > most:
        message = f"{param}: a text of {len(text)} characters; this server takes {most}. Shorten it."
        raise ApiError(400, message, code="text_too_long", param=param)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON's escapes can write half of a surrogate pair
        message = f"{param}: not valid Unicode: a lone surrogate at character {error.start}."
        raise ApiError(400, message, code="bad_text", param=param) from error


def _decode_token_ids(token_ids: Sequence[int], tokenizer: Tokenizer, param: str) -> str:
    """Decode token ids of the served model's tokenizer to their text."""
    size = tokenizer.get_vocab_size()
    unknown = next((id_ for id_ in token_ids if id_ >= size), None)
    if unknown is not None:
        message = f"{param}: there is no token {unknown}: the tokenizer of this model has {size}."
        raise ApiError(400, message, code="unknown_token", param=param)
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
    # A text may contain the replacement character itself; then encoding it gives the same ids.
    if _REPLACEMENT in text and tokenizer.encode(text, add_special_tokens=False).ids != list(token_ids):
        message = f"{param}: the token ids begin or end within a character. Cut texts, not their tokens."
        raise ApiError(400, message, code="bad_token_ids", param=param)
    return text


def _decode_data_uri(uri: str, param: str) -> bytes:
    try:
        return base64.b64decode(uri.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{param}: the picture's base64 is damaged: {error}"
        raise ApiError(400, message, code="bad_image", param=param) from error


def _count_pixels(data: bytes, param: str, limits: RequestLimits) -> int:
    """Return width times height by the header alone, so that a picture that is too large is never decoded."""
    with _errors_of_picture(param), open_image(data, "the picture") as image:
        width, height = image.size
    if max(width, height) > limits.max_side:
        message = f"{param}: {width}x{height} pixels; a side may have {limits.max_side}. Send a smaller picture."
        raise ApiError(400, message, code="side_too_long", param=param)
    if width * height > limits.max_pixels:
        message = f"{param}: {width}x{height} pixels; this server takes {limits.max_pixels}. Send a smaller picture."
        raise ApiError(400, message, code="too_many_pixels", param=param)
    return width * height


@contextmanager
def _errors_of_picture(param: str) -> Iterator[None]:
    """Turn any error of a decoder into a 400 for the item: with bytes of a client it may raise anything."""
    try:
        yield
    except FoundryError as error:
        raise _refused(error, param) from error
    except Exception as error:
        _LOG.exception("A decoder failed in a way that nobody foresaw.")
        message = f"{param}: the picture can't be decoded ({type(error).__name__})."
        raise ApiError(400, message, code="bad_image", param=param) from error


def _refused(error: FoundryError, param: str) -> ApiError:
    what = _ITEM_NUMBER.sub("", str(error))
    message = " ".join([f"{param}: {what}", *([error.hint] if error.hint else [])])
    return ApiError(400, message, code="bad_item", param=param)
