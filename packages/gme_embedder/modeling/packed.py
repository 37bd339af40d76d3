"""The packed forward of the language part: sequences end to end without padding, exact.

Three savings over the padded Hugging Face forward, all of the same mathematics: no padding tokens; the prompt prefix
that all sequences of a batch share is computed once; in the last layer only the pooled token has a query, an output
projection and a feed-forward. Uses the public submodules of a transformers text model of the Qwen2-VL, Qwen2.5-VL or
Qwen3-VL kind (which may be wrapped, e.g. by LoRA) and knows neither pictures nor prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gme_embedder.modeling.attention import GroupedAttention, PackedAttention
from gme_embedder.modeling.checkpointing import again_on_the_way_back
from gme_embedder.modeling.pointwise import gated, rms_norm
from gme_embedder.modeling.rotary import Rope, rotate
from gme_embedder.processing.batch import PackedLayout

Additions = tuple[Tensor, ...]
"""See `packed_forward`."""
Prefix = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [P, KV, head] of a prompt's first tokens, for each layer."""


def packed_forward(
    language: Any,  # noqa: ANN401 - any text model of the three kinds, also wrapped
    embeds: Tensor,
    positions: Tensor,
    layout: PackedLayout,
    attention: PackedAttention,
    slots: Tensor,
    additions: Additions = (),
    prefix: Prefix | None = None,
    *,
    checkpointed: bool = False,
) -> Tensor:
    """Final state of the last token of each sequence.

    Args:
        language: A text model of transformers.
        embeds: Input embeddings [T, d]: the prefix unless it is known, then the sequences.
        positions: Rotary positions int32 [3, T] (time, height, width).
        layout: How the T tokens divide.
        attention: Made for `layout`.
        slots: Places of visual tokens, int64 [s].
        additions: What the first layers add to the states at `slots`, [s, d] each (the "deepstack" of Qwen3-VL).
        prefix: What `prefix_states` gave, if `layout` says that it is known.
        checkpointed: Keep of each layer its input alone, and compute it again on the way back (Chen et al. 2016).

    Returns:
        [n, d] after the final norm, in packed order.
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])  # each [1, T, head]
    rope = cos[0, :, None], sin[0, :, None]  # [T, 1, head], the same for all heads
    hidden = embeds
    *earlier, final = language.layers
    for number, layer in enumerate(earlier):
        before = prefix[number] if prefix else None
        hidden = again_on_the_way_back(checkpointed, _all_tokens, layer, hidden, rope, attention, before)
        if number < len(additions):
            hidden = hidden.index_add(0, slots, additions[number].to(hidden.dtype))
    last = layout.last_tokens().to(hidden.device)
    query, key, value = _projected(final.self_attn, _norm(final.input_layernorm, hidden), rope, last)
    key, value = _after(prefix[-1] if prefix else None, key, value)
    mixed = attention.last_tokens(final.self_attn, query, key, value)
    return _norm(language.norm, _feed_forward(final, _sum(hidden[last], final.self_attn.o_proj(mixed.flatten(1)))))


def prefix_states(language: Any, embeds: Tensor, positions: Tensor) -> Prefix:  # noqa: ANN401 - as `packed_forward`
    """What later tokens need of a prompt's first ones.

    Args:
        language: As in `packed_forward`.
        embeds: Input embeddings [P, d].
        positions: int32 [3, P].
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])
    rope, hidden = (cos[0, :, None], sin[0, :, None]), embeds
    attention = GroupedAttention(PackedLayout(0, ((len(embeds), 1),)))
    states = []
    for layer in language.layers:
        query, key, value = _projected(layer.self_attn, _norm(layer.input_layernorm, hidden), rope)
        states.append((key, value))
        mixed = attention.all_tokens(layer.self_attn, query, key, value)
        hidden = _feed_forward(layer, _sum(hidden, layer.self_attn.o_proj(mixed.flatten(1))))
    return tuple(states)


def _all_tokens(
    layer: Any,  # noqa: ANN401 - a decoder layer
    hidden: Tensor,
    rope: Rope,
    attention: PackedAttention,
    before: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """One layer for all tokens, [T, d] -> [T, d]; `before` are the keys and values of a prefix that is known."""
    query, key, value = _projected(layer.self_attn, _norm(layer.input_layernorm, hidden), rope)
    key, value = _after(before, key, value)
    mixed = attention.all_tokens(layer.self_attn, query, key, value)
    return _feed_forward(layer, _sum(hidden, layer.self_attn.o_proj(mixed.flatten(1))))


def _after(before: tuple[Tensor, Tensor] | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return (torch.cat((before[0], key)), torch.cat((before[1], value))) if before else (key, value)


def _projected(
    attn: Any,  # noqa: ANN401 - an attention module of transformers
    states: Tensor,
    rope: Rope,
    asking: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries (of the rows `asking` alone) and keys, and values: [rows, H, head], [T, KV, head] twice."""
    asked, turns = (states, rope) if asking is None else (states[asking], (rope[0][asking], rope[1][asking]))
    query, key, value = (
        _heads(part, attn.head_dim) for part in (attn.q_proj(asked), attn.k_proj(states), attn.v_proj(states))
    )
    if hasattr(attn, "q_norm"):  # Qwen3
        query, key = _norm(attn.q_norm, query), _norm(attn.k_norm, key)
    return rotate(query, turns), rotate(key, rope), value


def _norm(norm: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - an RMSNorm of transformers
    return rms_norm(hidden, norm.weight, norm.variance_epsilon)


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - a decoder layer
    mlp, states = layer.mlp, _norm(layer.post_attention_layernorm, hidden)
    return _sum(hidden, mlp.down_proj(gated(mlp.act_fn, mlp.gate_proj(states), mlp.up_proj(states))))


def _sum(hidden: Tensor, update: Tensor) -> Tensor:
    # In inference nobody else holds the update: written over, it costs no new memory. A gradient cache encodes without
    # gradients too, but must get the vectors that it gets with them, so that is no ground for another way.
    in_place = torch.is_inference_mode_enabled() and update.dtype == hidden.dtype
    return update.add_(hidden) if in_place else hidden + update


def _heads(states: Tensor, head: int) -> Tensor:
    return states.view(*states.shape[:-1], -1, head)
