"""The packed forward of the language part: sequences end to end without padding, exact.

It saves three things over the padded forward of transformers and computes the same: there are no padding tokens; the
prompt prefix that all sequences of a batch share is computed once; in the last layer only the pooled token has a query,
an output projection and a feed-forward. It uses the public submodules of a text model of the Qwen2-VL, Qwen2.5-VL or
Qwen3-VL kind (which may be wrapped, e.g. by LoRA) and knows neither pictures nor prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gme_embedder.modeling.attention import GroupedAttention, PackedAttention
from gme_embedder.modeling.checkpointing import maybe_checkpoint
from gme_embedder.modeling.pointwise import gated, rms_norm
from gme_embedder.modeling.rotary import Rope, rotate
from gme_embedder.processing.batch import PackedLayout

Deepstack = tuple[Tensor, ...]
"""What each of the first layers adds to the states of the visual tokens, [s, d] each."""
PrefixCache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [P, KV, head] of a prompt's first tokens, for each layer."""


def packed_forward(
    language: Any,  # noqa: ANN401 - any text model of the three kinds, also wrapped
    embeds: Tensor,
    positions: Tensor,
    layout: PackedLayout,
    attention: PackedAttention,
    visual_indices: Tensor,
    deepstack: Deepstack = (),
    prefix: PrefixCache | None = None,
    *,
    checkpointed: bool = False,
) -> Tensor:
    """Computes the final state of the last token of each sequence.

    Args:
        language: A text model of transformers.
        embeds: Input embeddings [T, d]: the prefix unless it is cached, then the sequences.
        positions: Rotary positions int32 [3, T] (time, height, width).
        layout: How the T tokens divide.
        attention: Made for `layout`.
        visual_indices: Rows of `embeds` that hold visual tokens, int64 [s].
        deepstack: What the first layers add to the states at `visual_indices`, as Qwen3-VL's tower gives it.
        prefix: What `prefix_states` gave, if the prefix of `layout` is cached.
        checkpointed: Keep only the input of each layer, and recompute the layer in backward.

    Returns:
        [n, d] after the final norm, in packed order.
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])  # each [1, T, head]
    rope = cos[0, :, None], sin[0, :, None]  # [T, 1, head], the same for all heads
    hidden_states = embeds
    *layers, final = language.layers
    for number, layer in enumerate(layers):
        cached = prefix[number] if prefix else None
        hidden_states = maybe_checkpoint(checkpointed, _decoder_layer, layer, hidden_states, rope, attention, cached)
        if number < len(deepstack):
            hidden_states = hidden_states.index_add(0, visual_indices, deepstack[number].to(hidden_states.dtype))
    # The last layer feeds only the pooling, so it computes only keys and values for the tokens that are not pooled.
    last = layout.last_tokens().to(hidden_states.device)
    query, key, value = _project(final.self_attn, _norm(final.input_layernorm, hidden_states), rope, last)
    key, value = _after_prefix(prefix[-1] if prefix else None, key, value)
    output = final.self_attn.o_proj(attention.last_tokens(final.self_attn, query, key, value).flatten(1))
    return _norm(language.norm, _feed_forward(final, _add(hidden_states[last], output)))


def prefix_states(language: Any, embeds: Tensor, positions: Tensor) -> PrefixCache:  # noqa: ANN401 - as `packed_forward`
    """Computes the keys and values of a prompt's first tokens, which later tokens attend to.

    Args:
        language: As in `packed_forward`.
        embeds: Input embeddings [P, d].
        positions: int32 [3, P].
    """
    cos, sin = language.rotary_emb(embeds, positions[:, None])
    rope, hidden_states = (cos[0, :, None], sin[0, :, None]), embeds
    attention = GroupedAttention(PackedLayout(0, ((len(embeds), 1),)))
    cache = []
    for layer in language.layers:
        query, key, value = _project(layer.self_attn, _norm(layer.input_layernorm, hidden_states), rope)
        cache.append((key, value))
        output = layer.self_attn.o_proj(attention.all_tokens(layer.self_attn, query, key, value).flatten(1))
        hidden_states = _feed_forward(layer, _add(hidden_states, output))
    return tuple(cache)


def _decoder_layer(
    layer: Any,  # noqa: ANN401 - a decoder layer of transformers
    hidden_states: Tensor,
    rope: Rope,
    attention: PackedAttention,
    cached: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Runs one layer for all tokens, [T, d] -> [T, d]; `cached` are the keys and values of a cached prefix."""
    query, key, value = _project(layer.self_attn, _norm(layer.input_layernorm, hidden_states), rope)
    key, value = _after_prefix(cached, key, value)
    output = layer.self_attn.o_proj(attention.all_tokens(layer.self_attn, query, key, value).flatten(1))
    return _feed_forward(layer, _add(hidden_states, output))


def _after_prefix(cached: tuple[Tensor, Tensor] | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return (torch.cat((cached[0], key)), torch.cat((cached[1], value))) if cached else (key, value)


def _project(
    attn: Any,  # noqa: ANN401 - an attention module of transformers
    states: Tensor,
    rope: Rope,
    query_rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rotated queries [rows, H, head] of `query_rows` alone, rotated keys and values [T, KV, head] of all."""
    query_states, query_rope = states, rope
    if query_rows is not None:
        query_states, query_rope = states[query_rows], (rope[0][query_rows], rope[1][query_rows])
    projected = attn.q_proj(query_states), attn.k_proj(states), attn.v_proj(states)
    query, key, value = (part.view(*part.shape[:-1], -1, attn.head_dim) for part in projected)
    if hasattr(attn, "q_norm"):  # Qwen3 norms the heads of queries and keys
        query, key = _norm(attn.q_norm, query), _norm(attn.k_norm, key)
    return rotate(query, query_rope), rotate(key, rope), value


def _norm(norm: Any, states: Tensor) -> Tensor:  # noqa: ANN401 - an RMSNorm of transformers
    return rms_norm(states, norm.weight, norm.variance_epsilon)


def _feed_forward(layer: Any, hidden_states: Tensor) -> Tensor:  # noqa: ANN401 - a decoder layer
    mlp, states = layer.mlp, _norm(layer.post_attention_layernorm, hidden_states)
    return _add(hidden_states, mlp.down_proj(gated(mlp.act_fn, mlp.gate_proj(states), mlp.up_proj(states))))


def _add(hidden_states: Tensor, update: Tensor) -> Tensor:
    # In inference no other tensor needs the update: written over, the sum costs no new memory. A gradient cache encodes
    # without gradients too, but must get the very vectors that it gets with them, so `no_grad` is no reason for it.
    in_place = torch.is_inference_mode_enabled() and update.dtype == hidden_states.dtype
    return update.add_(hidden_states) if in_place else hidden_states + update
