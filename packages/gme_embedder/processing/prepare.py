"""Items to packed batches: tokenise, make room for the picture, resize and keep its pixels.

Pure but for a bounded cache of resized pictures. Knows the tokenizer and the input settings; never touches the model.
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
from gme_embedder.processing.containers import Items, several
from gme_embedder.processing.picture import resized, target_sizes
from gme_embedder.processing.pixel_cache import PixelCache
from gme_embedder.processing.prompt import PAD, SUFFIX, escape, escapes, head, prompt
from gme_embedder.processing.sources import Picture, Source, as_source, check_unicode

__all__ = ["Augment", "Planned", "PreparedBatch", "Preparer"]

_CACHED_BYTES = 256 * 2**20
_ENCODED_AT_ONCE = 256
LEAST_TEXT = 8
"""Tokens of a text that must be left when its end is cut; with fewer, texts that differ get one vector."""

OnError = Callable[[int, FoundryError], None]
"""Told the number of a bad item and what is wrong with it."""


def raise_error(_number: int, error: FoundryError) -> None:
    """The `OnError` that stops at the first bad item."""
    raise error


@dataclass(frozen=True, slots=True)
class Planned:
    """An item whose tokens and picture size are known, its picture not decoded yet."""

    number: int
    item: TokenisedItem
    picture: Picture | None


class Preparer:
    """Makes batches; picklable, so that data-loader processes can hold one.

    Args:
        tokenizer: Holds the special tokens of the prompt.
        config: Input settings of the model.
    """

    def __init__(self, tokenizer: Tokenizer, config: InputConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        (self._pad,) = self._encode(PAD)
        self._suffix = self._encode(SUFFIX)
        self._opening = len(self._encode(head("")))
        control = (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
        self.escapes = escapes(control)
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
        """One batch.

        Args:
            items: A container, see `containers.Items`; may be empty; any mixture of modalities.
            instruction: Of queries; None (and for candidates) means the default.
            images: Where the pictures of `Item`s are looked up.
            augment: Applied to the resized pictures.

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
        """Token ids and resized picture of each item. As `prepare`."""
        return [self.fill(planned) for planned in self.plan(items, instruction, images)]

    def plan(
        self,
        items: Items,
        instruction: str | None = None,
        images: Images | None = None,
        *,
        numbers: Sequence[int] | None = None,
        on_error: OnError = raise_error,
    ) -> list[Planned]:
        """What `tokenise` does before pictures are decoded: only their headers are read.

        Args:
            items: As in `prepare`.
            instruction: As in `prepare`.
            images: As in `prepare`.
            numbers: Of the items, for errors; from 0 if nobody says.
            on_error: Told of each bad item, which is then left out.

        Raises:
            FoundryError: One item instead of a container, or an instruction that leaves no room for a text.
        """
        instruction, opening = self._instruction(instruction)
        # A picture's place follows the head and the special token that opens it, whatever comes after.
        place = opening + 1
        items = several(items)
        numbered: list[tuple[int, Source]] = []
        for number, item in zip(range(len(items)) if numbers is None else numbers, items, strict=True):
            with _told(number, on_error):
                numbered.append((number, as_source(item, images)))
        prompts = [prompt(instruction, self.written(one.text), picture=one.picture is not None) for _, one in numbered]
        planned = []
        for (number, source), ids in zip(numbered, self._encode_all(prompts), strict=True):
            with _told(number, on_error):
                planned.append(Planned(number, self._item(ids, place, source.picture), source.picture))
        return planned

    def written(self, text: str | None) -> str | None:
        """A text as it stands in the prompt."""
        if not text:
            return text
        # What can't be within `max_tokens` however it is tokenised is left out: 10 MB would take seconds.
        return " " * self.config.leading_space + escape(text[: self._longest_text], self.escapes)

    def check_instruction(self, instruction: str | None) -> None:
        """Refuse an instruction before any item is looked at.

        Raises:
            FoundryError: It leaves no room for a text, or is one that UTF-8 can't hold.
        """
        self._instruction(instruction)

    def _instruction(self, instruction: str | None) -> tuple[str, int]:
        """The instruction as it stands in the prompt, and the tokens of the prompt up to the item."""
        if instruction is not None and not isinstance(instruction, str):
            raise FoundryError(
                f"The instruction must be one text for all items, found {type(instruction).__name__}.",
                hint="Call once for each instruction.",
            )
        instruction = check_unicode(instruction or self.config.default_instruction, "The instruction")
        written = escape(instruction, self.escapes)
        opening = len(self._encode(head(written)))
        room = self.config.max_tokens - opening - len(self._suffix)
        if room < LEAST_TEXT:
            most = self.config.max_tokens - self._opening - len(self._suffix) - LEAST_TEXT
            raise FoundryError(
                f"The instruction of {opening - self._opening} tokens leaves room for {max(room, 0)} tokens of a text: "
                f"max_tokens is {self.config.max_tokens}, {self._opening + len(self._suffix)} are the prompt's own, "
                f"and a text needs {LEAST_TEXT}.",
                hint=f"Shorten the instruction to {most} tokens or fewer, or load the model with a larger max_tokens.",
            )
        return written, opening

    def visual_tokens(self, width: int, height: int) -> int:
        """Visual tokens of a picture of so many pixels."""
        pictures = self.config.pictures
        high, wide = target_sizes(height, width, pictures)[-1]
        return (high // pictures.cell) * (wide // pictures.cell)

    def fill(self, planned: Planned) -> TokenisedItem:
        """The item with its picture decoded and resized. Threads may share a preparer.

        Raises:
            FoundryError: The picture is damaged.
        """
        if planned.picture is None:
            return planned.item
        try:
            return replace(planned.item, pixels=self._pixels(planned.picture))
        except FoundryError as error:
            raise _named(planned.number, error) from error

    def _encode_all(self, prompts: Sequence[str]) -> Iterator[Ids]:
        """Token ids of each. What the tokenizer gives holds ten times the memory of its ids, so few at a time."""
        for start in range(0, len(prompts), _ENCODED_AT_ONCE):
            some = prompts[start : start + _ENCODED_AT_ONCE]
            for one in self.tokenizer.encode_batch(some, add_special_tokens=False):
                yield np.array(one.ids, dtype=np.int32)

    def _item(self, ids: Ids, place: int, picture: Picture | None) -> TokenisedItem:
        if picture is None:
            return TokenisedItem(self._cut(ids), place)
        cells = self._cells(picture)
        visual = cells[0] * cells[1]
        room = self.config.max_tokens - place - 1 - len(self._suffix)  # 1 closes the picture
        if visual > room:
            raise FoundryError(
                f"A picture of {visual} visual tokens does not fit: beside an instruction of "
                f"{place - 1 - self._opening} tokens, max_tokens {self.config.max_tokens} leaves room for {room}.",
                hint="Raise max_tokens, lower the picture limits of the model, or shorten the instruction.",
            )
        text = len(ids) - place - 2 - len(self._suffix)  # 2: the picture's place, and what closes it
        if text > room - visual < LEAST_TEXT:
            raise FoundryError(
                f"A picture of {visual} visual tokens leaves room for {room - visual} of its text's {text} tokens: "
                f"max_tokens is {self.config.max_tokens}, the instruction has {place - 1 - self._opening}.",
                hint="Raise max_tokens, lower the picture limits of the model, or shorten the instruction.",
            )
        ids = np.concatenate([ids[:place], np.full(visual, self._pad, np.int32), ids[place + 1 :]])
        return TokenisedItem(self._cut(ids), place, None, cells)

    def _cut(self, ids: Ids) -> Ids:
        if len(ids) <= self.config.max_tokens:
            return ids
        closing = self._suffix if self.config.truncate == "text" else []
        return np.concatenate([ids[: self.config.max_tokens - len(closing)], np.array(closing, np.int32)])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _cells(self, picture: Picture) -> tuple[int, int]:
        """Visual tokens down and across; the header is read unless the pixels are here."""
        pictures = self.config.pictures
        known = self._cache.peek(picture.key)
        height, width = target_sizes(*picture.size(), pictures)[-1] if known is None else known.shape[:2]
        return height // pictures.cell, width // pictures.cell

    def _pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """The resized picture; one and the same array for one key as long as it is cached."""
        if picture.key is None:
            return resized(picture.load(), self.config.pictures)
        return self._cache.get(picture.key, lambda: resized(picture.load(), self.config.pictures))


@contextmanager
def _told(number: int, on_error: OnError) -> Iterator[None]:
    """Tell `on_error` of an error, naming the item it is about."""
    try:
        yield
    except FoundryError as error:
        on_error(number, _named(number, error))


def _named(number: int, error: FoundryError) -> FoundryError:
    return FoundryError(f"Item {number}: {error}", hint=error.hint, exit_code=error.exit_code)
