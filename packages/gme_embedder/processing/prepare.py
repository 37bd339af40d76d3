"""Items to packed batches: the prompt is tokenised, its picture resized, and visual tokens get their placeholders.

Its only state is a bounded cache of resized pictures. Knows the tokenizer and the settings of the inputs; never touches
the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_embedder.config import InputConfig
from gme_embedder.processing.batch import Augment, Ids, PreparedBatch, TokenisedItem, pack
from gme_embedder.processing.containers import Items, as_list
from gme_embedder.processing.inputs import ParsedItem, Picture, check_unicode, parse_item
from gme_embedder.processing.picture import resized, target_sizes
from gme_embedder.processing.pixel_cache import PixelCache
from gme_embedder.processing.prompt import PAD, SUFFIX, escape, escapes, prompt, prompt_opening

__all__ = ["Augment", "PreparedBatch", "Preparer", "UnloadedItem"]

_CACHED_BYTES = 256 * 2**20
_TOKENIZER_BATCH = 256
MIN_TEXT_TOKENS = 8
"""A text whose end is cut must keep this many tokens; with fewer, different texts would get one vector."""

OnError = Callable[[int, FoundryError], None]
"""A callback for bad items, with the number of the item and its error."""


def raise_error(_number: int, error: FoundryError) -> None:
    """Is the `OnError` that stops at the first bad item."""
    raise error


@dataclass(frozen=True, slots=True)
class UnloadedItem:
    """A tokenised item whose picture has a size but is not decoded yet.

    Attributes:
        number: What errors call the item.
        item: Its tokens, without pixels.
        picture: Its picture, to be decoded by `Preparer.load_picture`.
    """

    number: int
    item: TokenisedItem
    picture: Picture | None


class Preparer:
    """Turns items into batches; picklable, so that data-loader processes can hold one.

    Args:
        tokenizer: Holds the special tokens of the prompt.
        config: Input settings of the model.
    """

    def __init__(self, tokenizer: Tokenizer, config: InputConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        (self._pad,) = self._encode(PAD)
        self._suffix = self._encode(SUFFIX)
        self._opening = len(self._encode(prompt_opening("")))
        control = (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
        self.escapes = escapes(control)
        # A text that fits into `max_tokens` has no more characters than so many of the longest token.
        self._longest_text = config.max_tokens * max(map(len, tokenizer.get_vocab()))
        self._cache = PixelCache(_CACHED_BYTES)

    def prepare(
        self,
        items: Items,
        instruction: str | None = None,
        images: Images | None = None,
        *,
        augment: Augment | None = None,
    ) -> PreparedBatch:
        """Returns one batch.

        Args:
            items: A container, see `containers.Items`; may be empty; any mixture of modalities.
            instruction: The task of queries; None, and so for candidates, means the default.
            images: Where the pictures of `Item`s are looked up.
            augment: A change of the resized pictures.

        Raises:
            FoundryError: One item instead of a container; a bad item or picture; an instruction, or a picture, that
                leaves no room in `max_tokens`.
        """
        return pack(self.tokenise(items, instruction, images), self.config.positions, augment)

    def tokenise(
        self,
        items: Items,
        instruction: str | None = None,
        images: Images | None = None,
    ) -> list[TokenisedItem]:
        """Returns token ids and resized picture of each item; arguments and errors as for `prepare`."""
        return [self.load_picture(unloaded) for unloaded in self.tokenise_prompts(items, instruction, images)]

    def tokenise_prompts(
        self,
        items: Items,
        instruction: str | None = None,
        images: Images | None = None,
        *,
        numbers: Sequence[int] | None = None,
        on_error: OnError = raise_error,
    ) -> list[UnloadedItem]:
        """Does what `tokenise` does before pictures are decoded: of a picture only the header is read.

        Args:
            items: As in `prepare`.
            instruction: As in `prepare`.
            images: As in `prepare`.
            numbers: What errors call the items; counted from 0 by default.
            on_error: Called with each bad item, which is then left out.

        Raises:
            FoundryError: One item instead of a container, or an instruction that leaves no room for a text.
        """
        instruction, opening = self._instruction(instruction)
        # A picture follows the opening and the special token that starts it, whatever comes after.
        image_start = opening + 1
        items = as_list(items)
        parsed: list[tuple[int, ParsedItem]] = []
        for number, item in zip(range(len(items)) if numbers is None else numbers, items, strict=True):
            with _reported(number, on_error):
                parsed.append((number, parse_item(item, images)))
        prompts = [
            prompt(instruction, self.escaped_text(item.text), picture=item.picture is not None) for _, item in parsed
        ]
        unloaded = []
        for (number, parsed_item), ids in zip(parsed, self._encode_all(prompts), strict=True):
            with _reported(number, on_error):
                tokenised = self._item(ids, image_start, parsed_item.picture)
                unloaded.append(UnloadedItem(number, tokenised, parsed_item.picture))
        return unloaded

    def escaped_text(self, text: str | None) -> str | None:
        """Returns a text as it stands in the prompt."""
        if not text:
            return text
        # What lies beyond `max_tokens` however it is tokenised is cut first: to tokenise 10 MB would take seconds.
        return " " * self.config.leading_space + escape(text[: self._longest_text], self.escapes)

    def check_instruction(self, instruction: str | None) -> None:
        """Refuses a bad instruction before any item is read.

        Raises:
            FoundryError: It leaves no room for a text, or is one that UTF-8 can't hold.
        """
        self._instruction(instruction)

    def _instruction(self, instruction: str | None) -> tuple[str, int]:
        """Returns the instruction as it stands in the prompt, and how many tokens the prompt has up to the item."""
        if instruction is not None and not isinstance(instruction, str):
            raise FoundryError(
                f"The instruction must be one text for all items, found {type(instruction).__name__}.",
                hint="Call once for each instruction.",
            )
        instruction = check_unicode(instruction or self.config.default_instruction, "The instruction")
        escaped = escape(instruction, self.escapes)
        opening = len(self._encode(prompt_opening(escaped)))
        room = self.config.max_tokens - opening - len(self._suffix)
        if room < MIN_TEXT_TOKENS:
            most = self.config.max_tokens - self._opening - len(self._suffix) - MIN_TEXT_TOKENS
            raise FoundryError(
                f"The instruction of {opening - self._opening} tokens leaves room for {max(room, 0)} tokens of a text: "
                f"max_tokens is {self.config.max_tokens}, {self._opening + len(self._suffix)} are the prompt's own, "
                f"and a text needs {MIN_TEXT_TOKENS}.",
                hint=f"Shorten the instruction to {most} tokens or fewer, or load the model with a larger max_tokens.",
            )
        return escaped, opening

    def visual_tokens(self, width: int, height: int) -> int:
        """Returns how many visual tokens a picture of this size has."""
        pictures = self.config.pictures
        height, width = target_sizes(height, width, pictures)[-1]
        return (height // pictures.token_side) * (width // pictures.token_side)

    def load_picture(self, unloaded: UnloadedItem) -> TokenisedItem:
        """Returns the item with its picture decoded and resized. Threads may share a preparer.

        Raises:
            FoundryError: The picture is damaged.
        """
        if unloaded.picture is None:
            return unloaded.item
        try:
            return replace(unloaded.item, pixels=self._pixels(unloaded.picture))
        except FoundryError as error:
            raise _numbered(unloaded.number, error) from error

    def _encode_all(self, prompts: Sequence[str]) -> Iterator[Ids]:
        """Yields the token ids of each prompt."""
        for start in range(0, len(prompts), _TOKENIZER_BATCH):
            # Few at a time: an encoding of the tokenizer takes ten times the memory of its ids.
            batch = prompts[start : start + _TOKENIZER_BATCH]
            for encoding in self.tokenizer.encode_batch(batch, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int32)

    def _item(self, ids: Ids, image_start: int, picture: Picture | None) -> TokenisedItem:
        if picture is None:
            return TokenisedItem(self._cut(ids), image_start)
        token_grid = self._token_grid(picture)
        visual = token_grid[0] * token_grid[1]
        room = self.config.max_tokens - image_start - 1 - len(self._suffix)  # 1 closes the picture
        instruction = image_start - 1 - self._opening
        if visual > room:
            raise FoundryError(
                f"A picture of {visual} visual tokens does not fit: beside an instruction of "
                f"{instruction} tokens, max_tokens {self.config.max_tokens} leaves room for {room}.",
                hint="Raise max_tokens, lower the picture limits of the model, or shorten the instruction.",
            )
        text = len(ids) - image_start - 2 - len(self._suffix)  # 2: the placeholder of the picture, and what closes it
        if text > room - visual < MIN_TEXT_TOKENS:
            raise FoundryError(
                f"A picture of {visual} visual tokens leaves room for {room - visual} of its text's {text} tokens: "
                f"max_tokens is {self.config.max_tokens}, the instruction has {instruction}.",
                hint="Raise max_tokens, lower the picture limits of the model, or shorten the instruction.",
            )
        ids = np.concatenate([ids[:image_start], np.full(visual, self._pad, np.int32), ids[image_start + 1 :]])
        return TokenisedItem(self._cut(ids), image_start, None, token_grid)

    def _cut(self, ids: Ids) -> Ids:
        if len(ids) <= self.config.max_tokens:
            return ids
        closing = self._suffix if self.config.truncate == "text" else []
        return np.concatenate([ids[: self.config.max_tokens - len(closing)], np.array(closing, np.int32)])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _token_grid(self, picture: Picture) -> tuple[int, int]:
        """Returns the visual tokens down and across; the header is read unless the pixels are cached."""
        pictures = self.config.pictures
        cached = self._cache.peek(picture.key)
        height, width = target_sizes(*picture.size(), pictures)[-1] if cached is None else cached.shape[:2]
        return height // pictures.token_side, width // pictures.token_side

    def _pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """Returns the resized picture; the same array for one key as long as it is cached."""
        if picture.key is None:
            return resized(picture.load(), self.config.pictures)
        return self._cache.get(picture.key, lambda: resized(picture.load(), self.config.pictures))


@contextmanager
def _reported(number: int, on_error: OnError) -> Iterator[None]:
    """Hands an error of the block to `on_error`, with the number of the item in its text."""
    try:
        yield
    except FoundryError as error:
        on_error(number, _numbered(number, error))


def _numbered(number: int, error: FoundryError) -> FoundryError:
    return FoundryError(f"Item {number}: {error}", hint=error.hint, exit_code=error.exit_code)
