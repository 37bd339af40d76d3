"""The packed forward of the language part: sequences end to end without padding, exact.

Three savings over the padded Hugging Face forward, all of the same mathematics: no padding tokens; the prompt prefix
that all sequences of a batch share is computed once; in the last layer only the pooled token has a query, an output
projection and a feed-forward. Uses the public submodules of a transformers Qwen2-VL text model (which may be wrapped,
e.g. by LoRA) and knows neither pictures nor prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_SDPA_FROM = 512
"""Keys from which the fused kernel is used: below, its bfloat16 backward on CPU is five times slower than products."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the sequences lie: `prefix` shared tokens, then groups of sequences of equal length.

    Attributes:
        prefix: Number of shared tokens at the front, P (may be 0).
        groups: (length, count) of each group in packed order; lengths do not count the prefix and are at least 1.
    """

    prefix: int
    groups: tuple[tuple[int, int], ...]

    @property
    def sections(self) -> list[int]:
        """Tokens of the prefix and of each group: how a packed tensor [T, ...] splits."""
        return [self.prefix, *(length * count for length, count in self.groups)]

    def last_tokens(self) -> Tensor:
        """Index into the packed tokens of the last token of each sequence, int64 [n]."""
        lengths = torch.tensor([length for length, count in self.groups for _ in range(count)], dtype=torch.long)
        return self.prefix + lengths.cumsum(0) - 1


def packed_forward(language: Any, embeds: Tensor, positions: Tensor, layout: Layout) -> Tensor:  # noqa: ANN401 - any Qwen2-VL text model, also wrapped
    """Final state of the last token of each sequence.

    Args:
        language: A `Qwen2VLTextModel`.
        embeds: Input embeddings [T, d]: the prefix, then the sequences.
        positions: Rotary positions int64 [3, T] (time, height, width).
        layout: How the T tokens divide.

    Returns:
        [n, d] after the final norm, in packed order.
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])  # each [1, T, head]
    rope = cos[0, :, None], sin[0, :, None]  # [T, 1, head], the same for all heads
    hidden = embeds
    *earlier, final = language.layers
    for layer in earlier:
        attended = _attention(layer.self_attn, _norm(layer.input_layernorm, hidden), rope, layout)
        hidden = _feed_forward(layer, hidden + attended)
    attended = _last_attention(final.self_attn, _norm(final.input_layernorm, hidden), rope, layout)
    pooled = _feed_forward(final, hidden[layout.last_tokens()] + attended)
    return _norm(language.norm, pooled)


def _norm(norm: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - an RMSNorm of transformers
    # The module of transformers spells this out in five kernels; the fused one is the same formula.
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - a decoder layer
    update: Tensor = layer.mlp(_norm(layer.post_attention_layernorm, hidden))
    return hidden + update


def _attention(attn: Any, states: Tensor, rope: tuple[Tensor, Tensor], layout: Layout) -> Tensor:  # noqa: ANN401
    """Causal self-attention of every packed token, [T, d] -> [T, d]."""
    query = _rotate(_heads(attn.q_proj(states), attn.head_dim), rope)  # [T, H, head]
    key = _rotate(_heads(attn.k_proj(states), attn.head_dim), rope)  # [T, KV, head]
    value = _heads(attn.v_proj(states), attn.head_dim)
    queries, keys, values = (torch.split_with_sizes(part, layout.sections) for part in (query, key, value))
    mixed = []
    if layout.prefix:
        mixed.append(_attend(queries[0][None], keys[0][None], values[0][None], layout.prefix)[0])
    for group, (length, count) in enumerate(layout.groups, start=1):
        own = _sequences(queries[group], count)
        mixed.append(_attend(own, _keys(keys, group, count), _keys(values, group, count), length).flatten(0, 1))
    update: Tensor = attn.o_proj(torch.cat(mixed).flatten(1))
    return update


def _last_attention(attn: Any, states: Tensor, rope: tuple[Tensor, Tensor], layout: Layout) -> Tensor:  # noqa: ANN401
    """Attention of the last token of each sequence alone over all of its tokens, [T, d] -> [n, d]."""
    last = layout.last_tokens()
    key = _rotate(_heads(attn.k_proj(states), attn.head_dim), rope)
    value = _heads(attn.v_proj(states), attn.head_dim)
    query = _rotate(_heads(attn.q_proj(states[last]), attn.head_dim), (rope[0][last], rope[1][last]))  # [n, H, head]
    keys, values = (torch.split_with_sizes(part, layout.sections) for part in (key, value))
    queries = torch.split_with_sizes(query, [count for _, count in layout.groups])
    mixed = []
    for group, (_, count) in enumerate(layout.groups, start=1):
        own = queries[group - 1][:, None]
        mixed.append(_attend(own, _keys(keys, group, count), _keys(values, group, count), 1)[:, 0])
    update: Tensor = attn.o_proj(torch.cat(mixed).flatten(1))
    return update


def _heads(states: Tensor, head: int) -> Tensor:
    return states.view(*states.shape[:-1], -1, head)


def _rotate(states: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on [T, heads, head], in the precision of `states`."""
    cos, sin = (part.to(states.dtype) for part in rope)
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-right, left), dim=-1) * sin


def _sequences(packed: Tensor, count: int) -> Tensor:
    """[count * L, heads, head] -> [count, L, heads, head]."""
    return packed.view(count, -1, *packed.shape[1:])


def _keys(parts: tuple[Tensor, ...], group: int, count: int) -> Tensor:
    """Keys or values of a group's sequences, the shared prefix before each: [count, P + L, KV, head]."""
    prefix = parts[0].expand(count, *parts[0].shape)
    return torch.cat((prefix, _sequences(parts[group], count)), dim=1)


def _attend(query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
    """Grouped-query attention where query i of `length` sees all keys but the last `length - 1 - i`.

    Args:
        query: [b, length, H, head].
        key: [b, keys, KV, head] with keys >= length; H is a multiple of KV.
        value: As `key`.
        length: Number of queries.

    Returns:
        [b, length, H, head].
    """
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # heads first
    keys = key.shape[2]
    allowed = None
    if length > 1:
        allowed = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril(keys - length)
    if keys >= _SDPA_FROM:
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, enable_gqa=True)
        return mixed.transpose(1, 2)
    scores = _grouped(query, key.shape[1]) @ key.transpose(-1, -2)  # [b, KV, H / KV * length, keys]
    scores = scores.view(*scores.shape[:2], -1, length, keys) * query.shape[-1] ** -0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    weights = scores.softmax(-1).to(value.dtype).flatten(2, 3)
    mixed = torch.matmul(weights, value).view(query.shape)
    return mixed.transpose(1, 2)


def _grouped(query: Tensor, kv_heads: int) -> Tensor:
    """Queries that share a key head side by side: [b, H, length, head] -> [b, KV, H / KV * length, head]."""
    return query.reshape(query.shape[0], kv_heads, -1, query.shape[-1])
