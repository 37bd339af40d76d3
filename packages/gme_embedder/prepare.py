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
from gme_data.images import ImageStore
from gme_embedder.batch import Augment, Ids, PreparedBatch, TokenisedItem, pack
from gme_embedder.config import InputConfig
from gme_embedder.picture import resized, target_sizes
from gme_embedder.pixel_cache import PixelCache
from gme_embedder.prompt import PAD, SUFFIX, head, prompt
from gme_embedder.sources import EmbedderInput, Picture, Source, as_source

__all__ = ["Augment", "Planned", "PreparedBatch", "Preparer"]

_CACHED_BYTES = 256 * 2**20
_ENCODED_AT_ONCE = 256

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
        self._longest_text = config.max_tokens * max(map(len, tokenizer.get_vocab()))
        self._cache = PixelCache(_CACHED_BYTES)

    def prepare(
        self,
        items: Sequence[EmbedderInput],
        instruction: str | None = None,
        images: ImageStore | None = None,
        *,
        augment: Augment | None = None,
    ) -> PreparedBatch:
        """One batch.

        Args:
            items: May be empty; any mixture of modalities.
            instruction: Of queries; None (and for candidates) means the default.
            images: Where the pictures of `Item`s are looked up.
            augment: Applied to the resized pictures.

        Raises:
            FoundryError: A bad item or picture, or a picture with more visual tokens than fit in `max_tokens`.
        """
        return pack(self.tokenise(items, instruction, images), self.config.positions, augment)

    def tokenise(
        self,
        items: Sequence[EmbedderInput],
        instruction: str | None = None,
        images: ImageStore | None = None,
    ) -> list[TokenisedItem]:
        """Token ids and resized picture of each item. As `prepare`."""
        return [self.fill(planned) for planned in self.plan(items, instruction, images)]

    def plan(
        self,
        items: Sequence[EmbedderInput],
        instruction: str | None = None,
        images: ImageStore | None = None,
        *,
        first: int = 0,
        on_error: OnError = raise_error,
    ) -> list[Planned]:
        """What `tokenise` does before pictures are decoded: only their headers are read.

        Args:
            items: As in `prepare`.
            instruction: As in `prepare`.
            images: As in `prepare`.
            first: Number of the first item, for errors.
            on_error: Told of each bad item, which is then left out.
        """
        instruction = instruction or self.config.default_instruction
        # A picture's place follows the head and the special token that opens it, whatever comes after.
        place = len(self._encode(head(instruction))) + 1
        numbered: list[tuple[int, Source]] = []
        for number, item in enumerate(items, start=first):
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
        return " " * self.config.leading_space + text[: self._longest_text]

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
                f"A picture of {visual} visual tokens does not fit: max_tokens leaves room for {room}.",
                hint="Raise max_tokens or lower the picture limits of the model.",
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
