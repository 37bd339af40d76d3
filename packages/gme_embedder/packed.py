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
from torch.nn import functional

from gme_embedder.attention import GroupedAttention, Layout, PackedAttention
from gme_embedder.rotary import Rope, rotate

Additions = tuple[Tensor, ...]
"""See `packed_forward`."""
Prefix = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [P, KV, head] of a prompt's first tokens, for each layer."""


def packed_forward(
    language: Any,  # noqa: ANN401 - any text model of the three kinds, also wrapped
    embeds: Tensor,
    positions: Tensor,
    layout: Layout,
    attention: PackedAttention,
    slots: Tensor,
    additions: Additions = (),
    prefix: Prefix | None = None,
) -> Tensor:
    """Final state of the last token of each sequence.

    Args:
        language: A text model of transformers.
        embeds: Input embeddings [T, d]: the prefix unless it is known, then the sequences.
        positions: Rotary positions int64 [3, T] (time, height, width).
        layout: How the T tokens divide.
        attention: Made for `layout`.
        slots: Places of visual tokens, int64 [s].
        additions: What the first layers add to the states at `slots`, [s, d] each (the "deepstack" of Qwen3-VL).
        prefix: What `prefix_states` gave, if `layout` says that it is known.

    Returns:
        [n, d] after the final norm, in packed order.
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])  # each [1, T, head]
    rope = cos[0, :, None], sin[0, :, None]  # [T, 1, head], the same for all heads
    hidden = embeds
    *earlier, final = language.layers
    for number, layer in enumerate(earlier):
        query, key, value = _projected(layer.self_attn, _norm(layer.input_layernorm, hidden), rope)
        key, value = _after(prefix, number, key, value)
        mixed = attention.all_tokens(layer.self_attn, query, key, value)
        hidden = _feed_forward(layer, _sum(hidden, layer.self_attn.o_proj(mixed.flatten(1))))
        if number < len(additions):
            hidden = hidden.index_add(0, slots, additions[number].to(hidden.dtype))
    last = layout.last_tokens().to(hidden.device)
    query, key, value = _projected(final.self_attn, _norm(final.input_layernorm, hidden), rope, last)
    key, value = _after(prefix, len(earlier), key, value)
    mixed = attention.last_tokens(final.self_attn, query, key, value)
    return _norm(language.norm, _feed_forward(final, _sum(hidden[last], final.self_attn.o_proj(mixed.flatten(1)))))


def prefix_states(language: Any, embeds: Tensor, positions: Tensor) -> Prefix:  # noqa: ANN401 - as `packed_forward`
    """What later tokens need of a prompt's first ones.

    Args:
        language: As in `packed_forward`.
        embeds: Input embeddings [P, d].
        positions: int64 [3, P].
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])
    rope, hidden = (cos[0, :, None], sin[0, :, None]), embeds
    attention = GroupedAttention(Layout(0, ((len(embeds), 1),)))
    states = []
    for layer in language.layers:
        query, key, value = _projected(layer.self_attn, _norm(layer.input_layernorm, hidden), rope)
        states.append((key, value))
        mixed = attention.all_tokens(layer.self_attn, query, key, value)
        hidden = _feed_forward(layer, _sum(hidden, layer.self_attn.o_proj(mixed.flatten(1))))
    return tuple(states)


def _after(prefix: Prefix | None, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return (
        (key, value) if prefix is None else (torch.cat((prefix[layer][0], key)), torch.cat((prefix[layer][1], value)))
    )


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
    # The module of transformers spells this out in five kernels; the fused one is the same formula.
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401 - a decoder layer
    mlp, states = layer.mlp, _norm(layer.post_attention_layernorm, hidden)
    gate, up = mlp.act_fn(mlp.gate_proj(states)), mlp.up_proj(states)  # [T, intermediate] each, the largest there are
    return _sum(hidden, mlp.down_proj(gate.mul_(up) if torch.is_inference_mode_enabled() else gate * up))


def _sum(hidden: Tensor, update: Tensor) -> Tensor:
    # In inference nobody else holds the update: written over, it costs no new memory. A gradient cache encodes without
    # gradients too, but must get the vectors that it gets with them, so that is no ground for another way.
    in_place = torch.is_inference_mode_enabled() and update.dtype == hidden.dtype
    return update.add_(hidden) if in_place else hidden + update


def _heads(states: Tensor, head: int) -> Tensor:
    return states.view(*states.shape[:-1], -1, head)
