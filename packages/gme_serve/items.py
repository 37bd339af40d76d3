"""The items of a request at each step of its preparation: as they came, checked, and ready for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestItem:
    """An item of a request, unchecked.

    Attributes:
        text: The text.
        title: Title that is put before the text.
        image: Picture as encoded bytes, or as a data: URI in base64.
        token_ids: Token ids in place of the text.
    """

    text: str | None = None
    title: str | None = None
    image: bytes | str | None = None
    token_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class CheckedItem:
    """An item that is within all limits but those on tokens.

    Attributes:
        fields: The item as `Embedder.encode` takes it.
        cost: Time that its preparation takes, in characters to tokenise.
    """

    fields: dict[str, Any]
    cost: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the model can encode, or some of its items.

    Attributes:
        items: Items as `Embedder.encode` takes them.
        instruction: Instruction of all items.
        tokens: Tokens of each item, prompt and visual tokens included.
    """

    items: list[dict[str, Any]]
    instruction: str | None
    tokens: list[int]
