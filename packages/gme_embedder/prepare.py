"""Items to packed batches: tokenise, make room for the picture, resize and keep its pixels.

Pure but for a bounded cache of resized pictures. Knows the tokenizer and the input settings; never touches the model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_embedder.batch import Augment, PreparedBatch, TokenisedItem, pack
from gme_embedder.config import InputConfig
from gme_embedder.picture import resized
from gme_embedder.prompt import PAD, SUFFIX, head, prompt
from gme_embedder.sources import EmbedderInput, Picture, as_source

__all__ = ["Augment", "PreparedBatch", "Preparer"]

T = TypeVar("T")
_CACHED_BYTES = 256 * 2**20


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
        self._cache: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0

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
        *,
        first: int = 0,
    ) -> list[TokenisedItem]:
        """Token ids and resized picture of each item. As `prepare`; errors count the items from `first`."""
        instruction = instruction or self.config.default_instruction
        sources = [_named(as_source, first + row, item, images) for row, item in enumerate(items)]
        prompts = [prompt(instruction, self._cut_text(source.text), picture=bool(source.picture)) for source in sources]
        encoded = self.tokenizer.encode_batch(prompts, add_special_tokens=False)
        # A picture's place follows the head and the special token that opens it, whatever comes after.
        place = len(self._encode(head(instruction))) + 1
        pixels = [
            _named(self._pixels, first + row, source.picture) if source.picture else None
            for row, source in enumerate(sources)
        ]
        return [
            _named(self._item, first + row, one.ids, place, picture)
            for row, (one, picture) in enumerate(zip(encoded, pixels, strict=True))
        ]

    def _cut_text(self, text: str | None) -> str | None:
        """Without what can't be within `max_tokens` however it is tokenised; 10 MB would take seconds."""
        return text[: self._longest_text] if text else text

    def _item(self, ids: list[int], place: int, pixels: NDArray[np.uint8] | None) -> TokenisedItem:
        if pixels is not None:
            cell = self.config.pictures.cell
            cells = pixels.shape[0] // cell, pixels.shape[1] // cell
            visual = cells[0] * cells[1]
            room = self.config.max_tokens - place - 1 - len(self._suffix)  # 1 closes the picture
            if visual > room:
                raise FoundryError(
                    f"A picture of {visual} visual tokens does not fit: max_tokens leaves room for {room}.",
                    hint="Raise max_tokens or lower the picture limits of the model.",
                )
            ids = [*ids[:place], *[self._pad] * visual, *ids[place + 1 :]]
            return TokenisedItem(self._cut(ids), place, pixels, cells)
        return TokenisedItem(self._cut(ids), place)

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self.config.max_tokens:
            return ids
        closing = self._suffix if self.config.truncate == "text" else []
        return ids[: self.config.max_tokens - len(closing)] + closing

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """The resized picture; one and the same array for one key as long as it is cached."""
        if picture.key is None:
            return resized(picture.load(), self.config.pictures)
        if picture.key in self._cache:
            self._cache.move_to_end(picture.key)
            return self._cache[picture.key]
        pixels = resized(picture.load(), self.config.pictures)
        self._cache[picture.key] = pixels
        self._cached_bytes += pixels.nbytes
        while self._cached_bytes > _CACHED_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels


def _named(make: Callable[..., T], index: int, *arguments: object) -> T:
    """Call `make`; an error says which item it is about."""
    try:
        return make(*arguments)
    except FoundryError as error:
        raise FoundryError(f"Item {index}: {error}", hint=error.hint, exit_code=error.exit_code) from error
