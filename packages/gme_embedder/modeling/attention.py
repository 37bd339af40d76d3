"""Causal attention over packed sequences that may share a prefix: the one place that knows attention kernels.

Two ways to the same result. `GroupedAttention` runs sequences of equal length side by side, on any device.
`VarlenAttention` hands all of them to one variable-length kernel, such as FlashAttention's, through the attention
interface of transformers. Knows nothing of weights and positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gme_embedder.processing.batch import PackedLayout

_FUSED_FROM = 64
"""Keys from which the fused kernel is faster on a CPU."""
Heads = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values of whole heads to what they mix to."""


class PackedAttention(Protocol):
    """Attention for one `PackedLayout`, with K keys: T, and P more where the prefix is known.

    `module` is the transformers attention module at work.
    """

    def all_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """Every token over itself and what comes before it: query [T, H, head], keys [K, KV, head] -> [T, H, head]."""

    def last_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """The last token of each sequence over all of it: query [n, H, head], keys [K, KV, head] -> [n, H, head]."""


class GroupedAttention:
    """Sequences of one length in one call, without a mask of padding."""

    def __init__(self, layout: PackedLayout) -> None:
        self._layout = layout

    def all_tokens(self, _module: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `PackedAttention`."""
        layout = self._layout
        queries = torch.split_with_sizes(query, layout.sections)
        keys, values = (torch.split_with_sizes(part, layout.key_sections) for part in (key, value))
        mixed = []
        if layout.first:
            mixed.append(causal(queries[0][None], keys[0][None], values[0][None])[0])
        for group, (_, count) in enumerate(layout.groups, start=1):
            own = _sequences(queries[group], count)
            mixed.append(causal(own, _keys(keys, group, count), _keys(values, group, count)).flatten(0, 1))
        return torch.cat(mixed)

    def last_tokens(self, _module: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `PackedAttention`."""
        layout = self._layout
        keys, values = (torch.split_with_sizes(part, layout.key_sections) for part in (key, value))
        queries = torch.split_with_sizes(query, [count for _, count in layout.groups])
        mixed = []
        for group, (_, count) in enumerate(layout.groups, start=1):
            own = queries[group - 1][:, None]
            mixed.append(causal(own, _keys(keys, group, count), _keys(values, group, count))[:, 0])
        return torch.cat(mixed)


class VarlenAttention:
    """All sequences in one call of a kernel that takes their borders.

    Args:
        layout: The sequences.
        kernel: A function of transformers' attention interface that knows ``cu_seq_lens_q`` and its like, and lines a
            causal mask up with the last key (FlashAttention 2.1 and newer).
        device: Where the borders are needed.
    """

    def __init__(
        self, layout: PackedLayout, kernel: Callable[..., tuple[Tensor, object]], device: torch.device
    ) -> None:
        self._kernel = kernel
        lengths, prefix = layout.lengths(), layout.prefix
        starts = prefix + lengths.cumsum(0) - lengths
        rows = [torch.arange(layout.first)]
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            rows += [torch.arange(prefix), torch.arange(start, start + length)]
        self._rows = torch.cat(rows).to(device)  # of the keys: each sequence with the prefix before it
        shared = torch.tensor([layout.first] if layout.first else [], dtype=torch.long)
        queries, keys = torch.cat([shared, lengths]), torch.cat([shared, lengths + prefix])
        self._queries, self._keys = _borders(queries, device), _borders(keys, device)
        self._ones = _borders(torch.ones_like(lengths), device)
        self._skip = len(shared), layout.first  # the prefix has no last token of its own

    def all_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """See `PackedAttention`."""
        return self._call(module, query, key[self._rows], value[self._rows], self._queries, self._keys, causal=True)

    def last_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """See `PackedAttention`."""
        sequences, tokens = self._skip
        rows = self._rows[tokens:]
        borders = _Borders(self._keys.cumulative[sequences:] - tokens, self._keys.longest)
        return self._call(module, query, key[rows], value[rows], self._ones, borders, causal=False)

    def _call(
        self,
        module: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        queries: _Borders,
        keys: _Borders,
        *,
        causal: bool,
    ) -> Tensor:
        mixed, _ = self._kernel(
            module,
            *(part.transpose(0, 1)[None] for part in (query, key, value)),  # [1, heads, tokens, head]
            attention_mask=None,
            scaling=query.shape[-1] ** -0.5,
            is_causal=causal,
            cu_seq_lens_q=queries.cumulative,
            cu_seq_lens_k=keys.cumulative,
            max_length_q=queries.longest,
            max_length_k=keys.longest,
        )
        return mixed[0]


@dataclass(frozen=True, slots=True)
class _Borders:
    """Where sequences begin and end, int32 [n + 1], and the length of the longest."""

    cumulative: Tensor
    longest: int


def _borders(lengths: Tensor, device: torch.device) -> _Borders:
    cumulative = functional.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)
    return _Borders(cumulative, int(lengths.max()))


def _in_float32_where_faster(attention: Heads) -> Heads:
    """In training in half precision on a CPU, computes in float32 and gives back half precision.

    There oneDNN compiles its products anew for each shape, and packed batches hardly ever have the same twice; the
    fused kernel's backward is five times slower than in float32.
    """

    @wraps(attention)
    def widened(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.device.type != "cpu" or query.dtype == torch.float32 or torch.is_inference_mode_enabled():
            return attention(query, key, value)
        with torch.autocast("cpu", enabled=False):
            return attention(query.float(), key.float(), value.float()).to(query.dtype)

    return widened


@_in_float32_where_faster
def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Grouped-query attention where the last query sees all keys, the one before all but the last, and so on.

    Args:
        query: [b, length, H, head].
        key: [b, keys, KV, head] with keys >= length; H is a multiple of KV.
        value: As `key`.

    Returns:
        [b, length, H, head].
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # heads first
    length, keys = query.shape[2], key.shape[2]
    if _fused(keys, query):
        aligned = length == keys  # what the kernel's own causal mask takes for granted
        mask = None if aligned or length == 1 else _allowed(length, keys, query.device)
        if mask is not None and query.device.type != "cpu":  # no fused kernel of a GPU takes both a mask and groups
            key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=aligned and length > 1, enable_gqa=True
        )
        return mixed.transpose(1, 2)
    scores = _grouped(query, key.shape[1]) @ key.transpose(-1, -2)  # [b, KV, H / KV * length, keys]
    scores = scores.view(*scores.shape[:2], -1, length, keys) * query.shape[-1] ** -0.5
    if length > 1:
        scores = scores.masked_fill(~_allowed(length, keys, query.device), float("-inf"))
    weights = scores.softmax(-1).to(value.dtype).flatten(2, 3)
    return torch.matmul(weights, value).view(query.shape).transpose(1, 2)


@_in_float32_where_faster
def among_all(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of every token over all: [b, tokens, heads, head] each, and so the result."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if _fused(key.shape[2], query):
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2)


def _fused(keys: int, query: Tensor) -> bool:
    """Whether the fused kernel is the faster one."""
    return query.device.type != "cpu" or keys >= _FUSED_FROM


def _allowed(length: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees, bool [length, keys]."""
    return torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)


def _sequences(packed: Tensor, count: int) -> Tensor:
    """[count * L, heads, head] -> [count, L, heads, head]."""
    return packed.view(count, -1, *packed.shape[1:])


def _keys(parts: tuple[Tensor, ...], group: int, count: int) -> Tensor:
    """Keys or values of a group's sequences, the shared prefix before each: [count, P + L, KV, head]."""
    prefix = parts[0].expand(count, *parts[0].shape)
    return torch.cat((prefix, _sequences(parts[group], count)), dim=1)


def _grouped(query: Tensor, kv_heads: int) -> Tensor:
    """Queries that share a key head side by side: [b, H, length, head] -> [b, KV, H / KV * length, head]."""
    return query.reshape(query.shape[0], kv_heads, -1, query.shape[-1])
