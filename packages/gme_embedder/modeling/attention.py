"""Causal attention over packed sequences that may share a prefix; the only module that knows attention kernels.

`GroupedAttention` and `VarlenAttention` give the same result. The first runs sequences of equal length side by side, on
any device; the second hands all of them to one variable-length kernel, such as FlashAttention's, through the attention
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
"""On a CPU the fused kernel is faster than two matrix products from this many keys on."""
AttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function of queries, keys and values, split into heads, to the attention output."""


class PackedAttention(Protocol):
    """Attention for one `PackedLayout` with K keys: T of the packed tokens, and P more where the prefix is cached.

    `module` is the attention module of transformers whose states these are; kernels read its configuration.
    """

    def all_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """Returns, for query [T, H, head] and keys [K, KV, head], causal attention of every token, [T, H, head]."""

    def last_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """Returns, for query [n, H, head] and keys [K, KV, head], attention of each last token, [n, H, head]."""


class GroupedAttention:
    """Runs the sequences of each length in one call, so that no padding has to be masked."""

    def __init__(self, layout: PackedLayout) -> None:
        self._layout = layout

    def all_tokens(self, _module: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `PackedAttention`."""
        layout = self._layout
        queries = torch.split_with_sizes(query, layout.sections)
        keys, values = (torch.split_with_sizes(part, layout.key_sections) for part in (key, value))
        outputs = []
        if layout.first:
            outputs.append(causal_attention(queries[0][None], keys[0][None], values[0][None])[0])
        for group, (_, count) in enumerate(layout.groups, start=1):
            query = _unpack(queries[group], count)
            key, value = (_with_prefix(part, group, count) for part in (keys, values))
            outputs.append(causal_attention(query, key, value).flatten(0, 1))
        return torch.cat(outputs)

    def last_tokens(self, _module: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `PackedAttention`."""
        layout = self._layout
        keys, values = (torch.split_with_sizes(part, layout.key_sections) for part in (key, value))
        queries = torch.split_with_sizes(query, [count for _, count in layout.groups])
        outputs = []
        for group, (_, count) in enumerate(layout.groups, start=1):
            key, value = (_with_prefix(part, group, count) for part in (keys, values))
            outputs.append(causal_attention(queries[group - 1][:, None], key, value)[:, 0])
        return torch.cat(outputs)


class VarlenAttention:
    """Runs all sequences in one call of a kernel that takes their cumulative lengths.

    Args:
        layout: How the packed tokens divide.
        kernel: A function of transformers' attention interface that takes ``cu_seq_lens_q`` and its like, and aligns a
            causal mask with the last key (FlashAttention 2.1 and newer).
        device: Where the cumulative lengths are needed.
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
        # Kernels know no shared prefix, so its keys and values are repeated before those of each sequence.
        self._key_rows = torch.cat(rows).to(device)
        shared = torch.tensor([layout.first] if layout.first else [], dtype=torch.long)
        queries, keys = torch.cat([shared, lengths]), torch.cat([shared, lengths + prefix])
        self._queries, self._keys = _cumulative(queries, device), _cumulative(keys, device)
        self._one_query_each = _cumulative(torch.ones_like(lengths), device)
        self._skip = len(shared), layout.first  # `last_tokens` has no query for the prefix, which is no sequence

    def all_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """See `PackedAttention`."""
        return self._call(
            module, query, key[self._key_rows], value[self._key_rows], self._queries, self._keys, causal=True
        )

    def last_tokens(self, module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        """See `PackedAttention`."""
        sequences, tokens = self._skip
        rows = self._key_rows[tokens:]
        keys = _CumulativeLengths(self._keys.cumulative[sequences:] - tokens, self._keys.longest)
        # One query a sequence, its last token, attends to all keys: no mask is needed.
        return self._call(module, query, key[rows], value[rows], self._one_query_each, keys, causal=False)

    def _call(
        self,
        module: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        queries: _CumulativeLengths,
        keys: _CumulativeLengths,
        *,
        causal: bool,
    ) -> Tensor:
        output, _ = self._kernel(
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
        return output[0]


@dataclass(frozen=True, slots=True)
class _CumulativeLengths:
    """Where sequences begin and end, int32 [n + 1], and the length of the longest; ``cu_seqlens`` in FlashAttention."""

    cumulative: Tensor
    longest: int


def _cumulative(lengths: Tensor, device: torch.device) -> _CumulativeLengths:
    cumulative = functional.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)
    return _CumulativeLengths(cumulative, int(lengths.max()))


def upcast_on_cpu(attention: AttentionFn) -> AttentionFn:
    """Has `attention` computed in float32 when a CPU trains in half precision; the result is in half precision again.

    oneDNN compiles half-precision products anew for each shape, and packed batches hardly ever have the same twice; the
    fused kernel's backward is five times slower than in float32.
    """

    @wraps(attention)
    def upcast(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.device.type != "cpu" or query.dtype == torch.float32 or torch.is_inference_mode_enabled():
            return attention(query, key, value)
        with torch.autocast("cpu", enabled=False):
            return attention(query.float(), key.float(), value.float()).to(query.dtype)

    return upcast


@upcast_on_cpu
def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes grouped-query attention where the last query sees all keys, the one before all but the last, and so on.

    Args:
        query: [b, length, H, head].
        key: [b, keys, KV, head] with keys >= length; H is a multiple of KV.
        value: As `key`.

    Returns:
        [b, length, H, head].
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # heads first
    length, keys = query.shape[2], key.shape[2]
    if _fused_is_faster(keys, query):
        # The kernel's own causal mask aligns the first query with the first key, which a prefix before the queries
        # would break: they need an explicit mask.
        aligned = length == keys
        mask = None if aligned or length == 1 else _causal_mask(length, keys, query.device)
        # No fused kernel of a GPU takes both a mask and grouped queries: with both, PyTorch falls back to a slow one.
        if mask is not None and query.device.type != "cpu":
            key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=aligned and length > 1, enable_gqa=True
        )
        return output.transpose(1, 2)
    # Queries that share a key head are laid side by side, [b, KV, H / KV * length, head]: one product for all of them.
    grouped = query.reshape(query.shape[0], key.shape[1], -1, query.shape[-1])
    scores = grouped @ key.transpose(-1, -2)  # [b, KV, H / KV * length, keys]
    scores = scores.view(*scores.shape[:2], -1, length, keys) * query.shape[-1] ** -0.5
    if length > 1:
        scores = scores.masked_fill(~_causal_mask(length, keys, query.device), float("-inf"))
    weights = scores.softmax(-1).to(value.dtype).flatten(2, 3)
    return torch.matmul(weights, value).view(query.shape).transpose(1, 2)


@upcast_on_cpu
def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes attention of every token over all tokens; arguments and result are [b, tokens, heads, head]."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if _fused_is_faster(key.shape[2], query):
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2)


def _fused_is_faster(keys: int, query: Tensor) -> bool:
    return query.device.type != "cpu" or keys >= _FUSED_FROM


def _causal_mask(length: int, keys: int, device: torch.device) -> Tensor:
    """Returns which keys each query sees, bool [length, keys]; the last query sees the last key."""
    return torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)


def _unpack(packed: Tensor, count: int) -> Tensor:
    """Returns [count * L, heads, head] as [count, L, heads, head]."""
    return packed.view(count, -1, *packed.shape[1:])


def _with_prefix(parts: tuple[Tensor, ...], group: int, count: int) -> Tensor:
    """Returns keys or values of a group's sequences, the shared prefix before each: [count, P + L, KV, head]."""
    prefix = parts[0].expand(count, *parts[0].shape)
    return torch.cat((prefix, _unpack(parts[group], count)), dim=1)
