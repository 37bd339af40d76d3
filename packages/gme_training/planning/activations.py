"""Bytes that autograd saves of one packed micro-batch for its backward, counted operation by operation.

As Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) do for the layer of GPT, here for the forward of `packed` and
`tower`: rotary positions save nothing, a norm saves its input and one number for each row, SwiGLU its two inputs,
attention what its kernel saves. Knows shapes and precision; neither optimizers nor devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gme_embedder.costs import PATCHES_PER_TOKEN, Architecture, LanguageShape, TowerShape

FLOAT, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
_FUSED_FROM = 64
"""The number of keys from which `attention` uses a fused kernel on a CPU."""


@dataclass(frozen=True, slots=True)
class Numerics:
    """What is trained and in what precision, as far as memory and operations depend on it.

    Attributes:
        text: How the language part is trained: by low-rank ``adapters``, in ``full``, or not at all, ``frozen``.
        rank: The rank of the adapters.
        vision: Whether the tower is trained.
        autocast: Whether products are in bfloat16; norms and the residual stream stay in float32.
        frozen_half: Whether frozen weights are stored in bfloat16.
        checkpointing: Whether a language layer saves only its input.
        tower_only: Whether the language part does not run at all.
        on_cpu: Whether attention is that of `attention.causal_attention` on a CPU: in float32, and below 64 keys by
            products that save a weight for each pair of tokens; elsewhere a fused kernel saves none.
    """

    text: Literal["full", "adapters", "frozen"]
    rank: int
    vision: bool
    autocast: bool
    frozen_half: bool
    checkpointing: bool
    tower_only: bool = False
    on_cpu: bool = False

    @property
    def size(self) -> int:
        """The bytes of a number in a product."""
        return HALF if self.autocast else FLOAT

    @property
    def attention_size(self) -> int:
        """The bytes of a number in attention."""
        return FLOAT if self.on_cpu else self.size

    def fused(self, keys: float) -> bool:
        """Returns whether attention over so many keys runs in one kernel."""
        return not self.on_cpu or keys >= _FUSED_FROM


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Items of one length that are encoded in one forward.

    Attributes:
        items: The number of items.
        length: The tokens of each, without the prompt's head.
        head: The tokens of the head, which all share and which are computed once.
        picture: The visual tokens among `length`.
    """

    items: float
    length: float
    head: float = 0
    picture: float = 0

    @property
    def tokens(self) -> float:
        """The tokens that the language part computes."""
        return self.head + self.items * self.length

    @property
    def keys(self) -> float:
        """The tokens to which an item's last token attends, summed over the items."""
        return self.items * (self.head + self.length)

    @property
    def patches(self) -> float:
        """The patches that the tower computes."""
        return self.items * self.picture * PATCHES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class RankStep:
    """What one rank encodes in a step.

    Attributes:
        micro_batches: The rank's micro-batches in their order, each with how many there are of its kind.
        retained_bytes: The memory for retained graphs, `GradientCacheConfig.retained_mib`.
        vectors: The number of vectors of the global batch.
        rows: The number of queries of this rank.
    """

    micro_batches: tuple[tuple[MicroBatch, int], ...]
    retained_bytes: float
    vectors: float
    rows: float

    @property
    def count(self) -> int:
        """The number of micro-batches."""
        return sum(count for _, count in self.micro_batches)


def retained_graphs(graphs: Sequence[tuple[float, int]], retained_bytes: float) -> int:
    """Returns how many graphs the gradient cache retains.

    Args:
        graphs: The bytes of each graph, and how many in a row are alike.
        retained_bytes: A graph is retained while some of this memory is left and the largest graph so far still fits.
    """
    free_bytes, largest, retained = retained_bytes, 0.0, 0
    for graph, count in graphs:
        if free_bytes <= 0 or free_bytes < largest:
            break
        largest = max(largest, graph)
        # The first graph is retained before its size is known, and so is one that is larger than those before.
        more = count if graph <= 0 else min(count, 1 + max(0, int((free_bytes - largest) // graph)))
        free_bytes -= more * graph
        retained += more
        if more < count:
            break
    return retained


def graph_bytes(architecture: Architecture, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that the graph of a micro-batch's vectors saves, without the weights as they are stored."""
    tower = tower_bytes(architecture.tower, batch, numerics) if numerics.vision else 0
    if numerics.tower_only or (numerics.text == "frozen" and not numerics.vision):
        return tower
    text = architecture.language
    if numerics.checkpointing:
        return tower + text.layers * FLOAT * text.width * batch.tokens
    layers = (text.layers - 1) * layer_bytes(text, batch, numerics) + last_layer_bytes(text, batch, numerics)
    if numerics.text != "full" and not numerics.vision:  # no gradient goes beyond the first adapters
        layers -= FLOAT * (text.width + 1) * batch.tokens
    return tower + layers + shared_bytes(text, batch, numerics) + weight_copies(text, numerics)


def working_bytes(architecture: Architecture, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes of temporaries in the backward of one layer.

    They are the gradients of the feed-forward's three inner states and of four outer ones, and with checkpointing the
    layer's own graph.
    """
    text, tower = architecture.language, architecture.tower
    blocks = (3 * numerics.size * tower.inner + 4 * FLOAT * tower.width) * batch.patches * numerics.vision
    if numerics.tower_only:
        return blocks
    per_token = 3 * numerics.size * text.inner + 4 * FLOAT * text.width
    layer_graph = (
        layer_bytes(text, batch, numerics) + weight_copies(text, numerics) / text.layers
        if numerics.checkpointing
        else 0
    )
    return max(blocks, per_token * batch.tokens + layer_graph)


def layer_bytes(text: LanguageShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that one language layer saves over all tokens of the micro-batch."""
    size, tokens = numerics.size, batch.tokens
    norms = 2 * FLOAT * (text.width + 1)
    # Autocast copies the input of each product; in float32 the products after one norm share it. Inputs are saved for
    # the gradients of weights.
    inputs = (5 if numerics.autocast else 2) * text.width + text.queries + text.inner
    gates = 2 * text.inner
    turns = 4 * text.head_dim if numerics.autocast else 0
    trained = numerics.text != "frozen"
    adapters = len(text.linears) * numerics.rank if numerics.text == "adapters" else 0
    per_token = norms + size * (trained * inputs + gates + turns + adapters)
    return per_token * tokens + attention_bytes(text, batch, numerics)


def attention_bytes(text: LanguageShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that one layer's attention saves.

    They are the queries, each item's keys and values with the shared head before them, and the result with a number for
    each row and head (Dao et al. 2022, arXiv:2205.14135, section 3.1), or, without a fused kernel, all weights.
    """
    size = numerics.attention_size
    # The head's own attention saves views, which keep the keys and values of all tokens alive; if these are cast, it
    # saves copies of the head's alone.
    viewed = batch.tokens if size == numerics.size else batch.head
    keys = batch.keys + (viewed if batch.head else 0)
    states = size * (text.queries * batch.tokens + 2 * text.keys * keys)
    if numerics.fused(batch.head + batch.length):
        mask = size * batch.length * (batch.head + batch.length) * (batch.head > 0)
        return states + (size * text.queries + FLOAT * text.heads) * batch.tokens + mask
    return states + size * text.heads * (batch.length * batch.keys + batch.head**2)


def last_layer_bytes(text: LanguageShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that the last language layer saves: only keys and values are computed for all tokens."""
    size, trained = numerics.size, numerics.text != "frozen"
    inputs = (2 if numerics.autocast else 1) * text.width * trained
    turns = 2 * text.head_dim if numerics.autocast else 0
    all_tokens = FLOAT * (text.width + 1) + size * (inputs + turns)
    pooled = FLOAT * 3 * text.width + size * (trained * (4 * text.width + text.inner) + 2 * text.inner + text.queries)
    return all_tokens * batch.tokens + 2 * numerics.attention_size * text.keys * batch.keys + pooled * batch.items


def shared_bytes(text: LanguageShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that all layers share: in float32 the cosines and sines of the positions."""
    return 0 if numerics.autocast else 2 * FLOAT * text.head_dim * batch.tokens


def weight_copies(text: LanguageShape, numerics: Numerics) -> float:
    """Returns the bytes of the bfloat16 copies of weights that a graph saves.

    Autocast casts a weight at each use, and the product saves the copy for its input's gradient.
    """
    if not numerics.autocast:
        return 0
    adapters = HALF * text.adapters(numerics.rank) if numerics.text == "adapters" else 0
    stored_half = numerics.frozen_half and numerics.text != "full"
    return adapters + (0 if stored_half else HALF * text.layers * text.matrices)


def feature_bytes(architecture: Architecture, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes of the visual tokens that a frozen tower computes once for the whole step."""
    return 0 if numerics.vision else numerics.size * architecture.language.width * batch.items * batch.picture


def tower_forward_bytes(tower: TowerShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes of temporaries in the forward of a frozen tower.

    They are two inner states and the queries, keys and values of a block, three states in float32, and the pixels
    twice.
    """
    block = numerics.size * (2 * tower.inner + 3 * tower.width) + 3 * FLOAT * tower.width
    return 0 if numerics.vision else (block + 2 * FLOAT * tower.pixels) * batch.patches


def tower_bytes(tower: TowerShape, batch: MicroBatch, numerics: Numerics) -> float:
    """Returns the bytes that a trained tower saves: its blocks, their weights in bfloat16, merger and kernel."""
    size, patches = numerics.size, batch.patches
    norms = 2 * (FLOAT * tower.width + 2 * FLOAT)
    # Inputs of four products; the activation x * sigmoid(1.702 x) keeps x and the sigmoid.
    inputs = 3 * tower.width + tower.inner
    states, weights = tower_attention_bytes(tower, batch, numerics)
    block = norms + size * (inputs + 2 * tower.inner) + states + weights
    merger = FLOAT * (tower.width + 2) + 3 * size * tower.width + FLOAT * tower.out / PATCHES_PER_TOKEN
    kernel = size * tower.pixels
    copies = HALF * (tower.depth * tower.matrices + tower.merger) if numerics.autocast else 0
    return (tower.depth * block + merger + kernel) * patches + copies


def tower_attention_bytes(tower: TowerShape, batch: MicroBatch, numerics: Numerics) -> tuple[float, float]:
    """Returns the bytes that a block's attention saves for each patch: states, and weights or their normalisers."""
    size, patches = numerics.attention_size, batch.picture * PATCHES_PER_TOKEN
    if not numerics.fused(patches):
        return 3 * size * tower.width, size * tower.heads * patches
    # Queries, keys and the result; values too, which are a view of all three before rotation unless they are cast.
    values = 3 if size == numerics.size else 1
    return (3 + values) * size * tower.width, FLOAT * tower.heads
