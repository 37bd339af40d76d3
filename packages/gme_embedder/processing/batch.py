"""Tokenised items laid out as one packed batch of tensors.

Items are sorted by length and their common prefix is shared; visual tokens and rotary positions get their indices.
Knows neither the tokenizer nor the model.
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

from gme_embedder.config import SPATIAL_MERGE_SIZE
from gme_embedder.processing.picture import patchify

Augment = Callable[[Tensor], Tensor]
"""A change of equal-sized training pictures, uint8 [n, height, width, 3] of pixels 0..255; it may return float32."""

Positions = Literal["sequential", "mrope"]
Ids = NDArray[np.int32]
_PositionIds = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenisedItem:
    """One item.

    Attributes:
        ids: Token ids [length]; a picture has one placeholder for each of its visual tokens.
        image_start: Index of the first visual token, or where it would be in an item without a picture.
        pixels: The resized picture uint8 [height, width, 3], or None.
        token_grid: Visual tokens down and across; (0, 0) without a picture.
    """

    ids: Ids
    image_start: int
    pixels: NDArray[np.uint8] | None = None
    token_grid: tuple[int, int] = (0, 0)


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
    """How packed tokens divide: `prefix` shared tokens, then groups of sequences of equal length.

    Attributes:
        prefix: Number of shared tokens at the front, P (may be 0).
        groups: (length, count) of each group in packed order; lengths do not count the prefix and are at least 1.
        prefix_cached: The prefix was computed before: it is among keys and values, not among the packed tokens.
    """

    prefix: int
    groups: tuple[tuple[int, int], ...]
    prefix_cached: bool = False

    @property
    def first(self) -> int:
        """Index of the first sequence among the packed tokens."""
        return 0 if self.prefix_cached else self.prefix

    @property
    def sections(self) -> list[int]:
        """Number of packed tokens of the prefix and of each group, for `torch.split_with_sizes`."""
        return [self.first, *(length * count for length, count in self.groups)]

    @property
    def key_sections(self) -> list[int]:
        """As `sections` for keys and values, which always include the prefix."""
        return [self.prefix, *self.sections[1:]]

    def lengths(self) -> Tensor:
        """Returns the length of each sequence without the prefix, int64 [n]."""
        return torch.tensor([length for length, count in self.groups for _ in range(count)], dtype=torch.long)

    def last_tokens(self) -> Tensor:
        """Returns the index of the last token of each sequence among the packed tokens, int64 [n]."""
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
        visual_indices: Indices of the visual tokens among `tokens`, int64 [s].
        visual_rows: For each of these, its row in the visual tokens of all `pictures` laid end to end, int64 [s].
        visual_tokens: The output of the tower for all `pictures`, if it has run; see
            `EmbedderModel.with_visual_tokens`.
    """

    tokens: Tensor
    positions: Tensor
    layout: PackedLayout
    rows: Tensor
    pictures: tuple[PictureGroup, ...]
    visual_indices: Tensor
    visual_rows: Tensor
    visual_tokens: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def real_tokens(self) -> int:
        """Number of tokens of all sequences, each with its own prefix; `tokens` has fewer where a prefix is shared."""
        return int(self.layout.lengths().sum()) + self.layout.prefix * len(self)

    def without_prefix(self) -> PreparedBatch:
        """Returns the same sequences after a prefix whose keys and values are cached."""
        length = self.layout.prefix
        return replace(
            self,
            tokens=self.tokens[length:],
            positions=self.positions[:, length:],
            layout=replace(self.layout, prefix_cached=True),
            visual_indices=self.visual_indices - length,
        )


def pack(items: Sequence[TokenisedItem], positions: Positions, augment: Augment | None = None) -> PreparedBatch:
    """Lays items end to end. An empty sequence makes an empty batch."""
    # Stable, so that equal lengths keep their order and one input gives one batch, to the last bit.
    order = sorted(range(len(items)), key=lambda row: len(items[row].ids))
    ordered = [items[row] for row in order]
    prefix = shared_prefix(ordered)
    lengths = [len(item.ids) - prefix for item in ordered]
    layout = PackedLayout(prefix, tuple((length, len(list(group))) for length, group in groupby(lengths)))
    tokens = [*(item.ids[:prefix] for item in ordered[:1]), *(item.ids[prefix:] for item in ordered)]
    position_ids = [rotary_positions(item, positions) for item in ordered]
    starts = prefix + np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pictures, first_rows = _group_pictures(ordered, augment)
    return PreparedBatch(
        tokens=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *tokens])),
        positions=torch.from_numpy(
            np.concatenate(
                [np.arange(prefix) + np.zeros((3, 1), np.int64), *(ids[:, prefix:] for ids in position_ids)], axis=1
            )
        ).int(),
        layout=layout,
        rows=torch.from_numpy(np.argsort(np.asarray(order, dtype=np.int64))),
        pictures=pictures,
        visual_indices=_ranges(
            [start - prefix + item.image_start for start, item in zip(starts, ordered, strict=False)], ordered
        ),
        visual_rows=_ranges(first_rows, ordered),
    )


def shared_prefix(items: Sequence[TokenisedItem]) -> int:
    """Returns how many leading tokens all items share; each keeps its last token, and no visual token is shared."""
    if len(items) < 2:
        return 0
    limit = min(len(item.ids) - 1 if item.token_grid == (0, 0) else item.image_start for item in items)
    first = items[0].ids[:limit]
    same = np.ones(limit, dtype=bool)
    for item in items[1:]:
        same &= first == item.ids[:limit]
    return limit if same.all() else int(same.argmin())


def rotary_positions(item: TokenisedItem, kind: Positions) -> _PositionIds:
    """Returns the positions of an item's tokens on the time, height and width axes, int64 [3, length].

    `mrope` is Qwen2-VL's: a picture's tokens share one time and take their row and column; the text goes on after the
    longer of its sides (arXiv:2409.12191, section 2.1).
    """
    rows, columns = item.token_grid
    if kind == "sequential" or not rows:
        return np.broadcast_to(np.arange(len(item.ids)), (3, len(item.ids)))
    before = np.broadcast_to(np.arange(item.image_start), (3, item.image_start))
    grid = np.stack([np.zeros(rows * columns, np.int64), *np.divmod(np.arange(rows * columns), columns)])
    after = np.arange(len(item.ids) - item.image_start - rows * columns) + max(rows, columns)
    return np.concatenate(
        [before, item.image_start + grid, item.image_start + np.broadcast_to(after, (3, len(after)))], axis=1
    )


def _group_pictures(
    items: Sequence[TokenisedItem], augment: Augment | None
) -> tuple[tuple[PictureGroup, ...], list[int]]:
    """Stacks distinct pictures by size; returns also the row of each item's first visual token (0 without picture)."""
    by_size: dict[tuple[int, int], dict[int, NDArray[np.uint8]]] = {}
    for item in items:
        if item.pixels is not None:
            # The cache of the preparer hands out one array per picture, so identity tells pictures apart.
            by_size.setdefault(item.token_grid, {}).setdefault(id(item.pixels), item.pixels)
    groups, first_row, tokens = [], {}, 0
    # Sorted by size, so that the groups do not depend on the order of the items.
    for grid, distinct in sorted(by_size.items()):
        pixels = torch.from_numpy(np.stack(list(distinct.values())))
        side = pixels.shape[1] // (grid[0] * SPATIAL_MERGE_SIZE)
        patches = patchify(augment(pixels) if augment else pixels, side)
        groups.append(PictureGroup(patches, (grid[0] * SPATIAL_MERGE_SIZE, grid[1] * SPATIAL_MERGE_SIZE)))
        for number, key in enumerate(distinct):
            first_row[key] = tokens + number * grid[0] * grid[1]
        tokens += len(distinct) * grid[0] * grid[1]
    return tuple(groups), [first_row.get(id(item.pixels), 0) for item in items]


def _ranges(starts: Sequence[int], items: Sequence[TokenisedItem]) -> Tensor:
    """Returns consecutive numbers from its start for the visual tokens of each picture, laid end to end, int64."""
    parts = [
        np.arange(item.token_grid[0] * item.token_grid[1]) + start for start, item in zip(starts, items, strict=True)
    ]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64))
