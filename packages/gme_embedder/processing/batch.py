"""Tokenised items laid out as one packed batch of tensors.

Orders by length, shares the common prefix, places visual tokens and rotary positions. Knows neither the tokenizer nor
the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gme_embedder.processing.picture import MERGE, patchify

Augment = Callable[[Tensor], Tensor]
"""Changes equal-sized training pictures, uint8 [n, height, width, 3] of pixels 0..255; may return float32."""

Positions = Literal["sequential", "mrope"]
Ids = NDArray[np.int32]
_Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenisedItem:
    """One item.

    Attributes:
        ids: Token ids [length], the picture's place already as long as its visual tokens.
        head: Tokens before the first that can differ from a neighbour's by more than its id (the picture's place).
        pixels: The resized picture uint8 [height, width, 3], or None.
        cells: Visual tokens down and across; (0, 0) without a picture.
    """

    ids: Ids
    head: int
    pixels: NDArray[np.uint8] | None = None
    cells: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class PictureGroup:
    """Distinct pictures of one size.

    Attributes:
        patches: Pixels 0..255, uint8 or float32 [m, patches, side * side * 3].
        grid: Patches down and across.
    """

    patches: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where the sequences lie: `prefix` shared tokens, then groups of sequences of equal length.

    Attributes:
        prefix: Number of shared tokens at the front, P (may be 0).
        groups: (length, count) of each group in packed order; lengths do not count the prefix and are at least 1.
        known: The prefix was computed before: it stands among keys and values, not among the packed tokens.
    """

    prefix: int
    groups: tuple[tuple[int, int], ...]
    known: bool = False

    @property
    def first(self) -> int:
        """Packed tokens before the first sequence."""
        return 0 if self.known else self.prefix

    @property
    def sections(self) -> list[int]:
        """Tokens of the prefix and of each group: how packed tokens [T, ...] split."""
        return [self.first, *(length * count for length, count in self.groups)]

    @property
    def key_sections(self) -> list[int]:
        """As `sections`, of keys and values, which always have the prefix."""
        return [self.prefix, *self.sections[1:]]

    def lengths(self) -> Tensor:
        """Tokens of each sequence without the prefix, int64 [n]."""
        return torch.tensor([length for length, count in self.groups for _ in range(count)], dtype=torch.long)

    def last_tokens(self) -> Tensor:
        """Index into the packed tokens of the last token of each sequence, int64 [n]."""
        return self.first + self.lengths().cumsum(0) - 1


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Items as the model takes them: n sequences in T packed tokens.

    Attributes:
        tokens: Token ids int64 [T]: the shared prefix, then the sequences by length.
        positions: Rotary positions int32 [3, T].
        layout: How the tokens divide.
        rows: For each item in the caller's order, its packed row, int64 [n].
        pictures: Distinct pictures by size.
        slots: Places in `tokens` that hold visual tokens, int64 [s].
        visual_rows: For each slot, its row in the visual tokens of all `pictures` laid end to end, int64 [s].
        visual: The visual tokens of all `pictures`, if the tower has run: see `EmbedderModel.with_visual`.
    """

    tokens: Tensor
    positions: Tensor
    layout: PackedLayout
    rows: Tensor
    pictures: tuple[PictureGroup, ...]
    slots: Tensor
    visual_rows: Tensor
    visual: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def real_tokens(self) -> int:
        """Tokens of all sequences, each with its prefix; more than `tokens` has where a prefix is shared."""
        return int(self.layout.lengths().sum()) + self.layout.prefix * len(self)

    def without_prefix(self) -> PreparedBatch:
        """The same sequences after a prefix that is known."""
        length = self.layout.prefix
        return replace(
            self,
            tokens=self.tokens[length:],
            positions=self.positions[:, length:],
            layout=replace(self.layout, known=True),
            slots=self.slots - length,
        )


def pack(items: Sequence[TokenisedItem], positions: Positions, augment: Augment | None = None) -> PreparedBatch:
    """Lay items end to end. An empty sequence makes an empty batch."""
    order = sorted(range(len(items)), key=lambda row: len(items[row].ids))  # stable: equal lengths keep their order
    ordered = [items[row] for row in order]
    prefix = shared_prefix(ordered)
    lengths = [len(item.ids) - prefix for item in ordered]
    layout = PackedLayout(prefix, tuple((length, len(list(group))) for length, group in groupby(lengths)))
    tokens = [*(item.ids[:prefix] for item in ordered[:1]), *(item.ids[prefix:] for item in ordered)]
    places = [rotary_positions(item, positions) for item in ordered]
    starts = prefix + np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pictures, first_rows = _group_pictures(ordered, augment)
    return PreparedBatch(
        tokens=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *tokens])),
        positions=torch.from_numpy(
            np.concatenate([np.arange(prefix) + np.zeros((3, 1), np.int64), *(p[:, prefix:] for p in places)], axis=1)
        ).int(),
        layout=layout,
        rows=torch.from_numpy(np.argsort(np.asarray(order, dtype=np.int64))),
        pictures=pictures,
        slots=_ranges([start - prefix + item.head for start, item in zip(starts, ordered, strict=False)], ordered),
        visual_rows=_ranges(first_rows, ordered),
    )


def shared_prefix(items: Sequence[TokenisedItem]) -> int:
    """Leading tokens that all items share; each keeps at least its last token, and pictures are never shared."""
    if len(items) < 2:
        return 0
    limit = min(len(item.ids) - 1 if item.cells == (0, 0) else item.head for item in items)
    first = items[0].ids[:limit]
    same = np.ones(limit, dtype=bool)
    for item in items[1:]:
        same &= first == item.ids[:limit]
    return limit if same.all() else int(same.argmin())


def rotary_positions(item: TokenisedItem, kind: Positions) -> _Places:
    """Positions of all tokens of an item on the time, height and width axes, int64 [3, length].

    `mrope` is Qwen2-VL's: a picture's tokens share one time and take their row and column; the text goes on after the
    longer of its sides (arXiv:2409.12191, section 2.1).
    """
    rows, columns = item.cells
    if kind == "sequential" or not rows:
        return np.broadcast_to(np.arange(len(item.ids)), (3, len(item.ids)))
    before = np.broadcast_to(np.arange(item.head), (3, item.head))
    grid = np.stack([np.zeros(rows * columns, np.int64), *np.divmod(np.arange(rows * columns), columns)])
    after = np.arange(len(item.ids) - item.head - rows * columns) + max(rows, columns)
    return np.concatenate([before, item.head + grid, item.head + np.broadcast_to(after, (3, len(after)))], axis=1)


def _group_pictures(
    items: Sequence[TokenisedItem], augment: Augment | None
) -> tuple[tuple[PictureGroup, ...], list[int]]:
    """Distinct pictures stacked by size, and for each item the row of its first visual token (0 without a picture)."""
    by_size: dict[tuple[int, int], dict[int, NDArray[np.uint8]]] = {}
    for item in items:
        if item.pixels is not None:
            # The cache of the preparer hands out one array per picture, so identity tells pictures apart.
            by_size.setdefault(item.cells, {}).setdefault(id(item.pixels), item.pixels)
    groups, first_row, done = [], {}, 0
    for cells, distinct in sorted(by_size.items()):
        pixels = torch.from_numpy(np.stack(list(distinct.values())))
        side = pixels.shape[1] // (cells[0] * MERGE)
        patches = patchify(augment(pixels) if augment else pixels, side)
        groups.append(PictureGroup(patches, (cells[0] * MERGE, cells[1] * MERGE)))
        for number, key in enumerate(distinct):
            first_row[key] = done + number * cells[0] * cells[1]
        done += len(distinct) * cells[0] * cells[1]
    return tuple(groups), [first_row.get(id(item.pixels), 0) for item in items]


def _ranges(starts: Sequence[int], items: Sequence[TokenisedItem]) -> Tensor:
    """For each picture's visual tokens, consecutive numbers from its start; all laid end to end, int64."""
    parts = [np.arange(item.cells[0] * item.cells[1]) + start for start, item in zip(starts, items, strict=True)]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64))
