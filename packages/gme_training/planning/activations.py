"""Bytes that autograd keeps of one packed micro-batch until its backward, counted operation by operation.

As Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) do for the layer of GPT, here for the forward of `packed` and
`tower`: rotary positions keep no states, a norm keeps its input and one number a row, SwiGLU its two inputs, attention
what its kernel keeps. Knows shapes and precision; neither optimizers nor devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gme_embedder.costs import PATCHES_PER_TOKEN, Architecture, LanguageShape, TowerShape

FLOAT, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
_FUSED_FROM = 64  # of `attention`, on a CPU


@dataclass(frozen=True, slots=True)
class Numerics:
    """What is trained and in what precision, as far as it decides what is kept.

    Attributes:
        text: How the language part is trained; by low-rank ``adapters``, ``full`` or not at all, ``frozen``.
        rank: Of the adapters.
        vision: Whether the tower is trained.
        autocast: Products in bfloat16; norms and the residual stream stay in float32.
        frozen_half: Frozen weights are stored in bfloat16.
        checkpointing: A language layer keeps its input alone.
        tower_only: The language part is not run at all.
        on_cpu: Attention as `attention.causal_attention` has it on a CPU: in float32, and below 64 keys by products
            that keep a weight for each pair of tokens; elsewhere by a fused kernel, which keeps none.
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
        """Bytes of a number in a product."""
        return HALF if self.autocast else FLOAT

    @property
    def attention_size(self) -> int:
        """Bytes of a number in attention."""
        return FLOAT if self.on_cpu else self.size

    def fused(self, keys: float) -> bool:
        """Whether attention over so many keys runs in one kernel."""
        return not self.on_cpu or keys >= _FUSED_FROM


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Items of one length, encoded at once.

    Attributes:
        items: How many.
        length: Tokens of each, without the prompt's head.
        head: Tokens of the head, which all share and which are computed once.
        picture: Visual tokens among `length`.
    """

    items: float
    length: float
    head: float = 0
    picture: float = 0

    @property
    def tokens(self) -> float:
        """Tokens that the language part computes."""
        return self.head + self.items * self.length

    @property
    def keys(self) -> float:
        """Tokens that an item's last token sees, summed over the items."""
        return self.items * (self.head + self.length)

    @property
    def patches(self) -> float:
        """Patches that the tower computes."""
        return self.items * self.picture * PATCHES_PER_TOKEN


def graph_bytes(shape: Architecture, batch: MicroBatch, how: Numerics) -> float:
    """What the graph of a micro-batch's vectors keeps, in bytes, beside the weights as they are stored."""
    tower = tower_bytes(shape.tower, batch, how) if how.vision else 0
    if how.tower_only or (how.text == "frozen" and not how.vision):
        return tower
    text = shape.language
    if how.checkpointing:
        return tower + text.layers * FLOAT * text.width * batch.tokens
    layers = (text.layers - 1) * layer_bytes(text, batch, how) + last_layer_bytes(text, batch, how)
    if how.text != "full" and not how.vision:  # no gradient goes beyond the first adapters
        layers -= FLOAT * (text.width + 1) * batch.tokens
    return tower + layers + shared_bytes(text, batch, how) + weight_copies(text, how)


def working_bytes(shape: Architecture, batch: MicroBatch, how: Numerics) -> float:
    """What comes and goes in the backward of one layer beside its graph, in bytes.

    Gradients of the feed-forward's three inner states and of four outer ones, and with checkpointing the layer's own
    graph.
    """
    text, tower = shape.language, shape.tower
    blocks = (3 * how.size * tower.inner + 4 * FLOAT * tower.width) * batch.patches * how.vision
    if how.tower_only:
        return blocks
    per_token = 3 * how.size * text.inner + 4 * FLOAT * text.width
    again = layer_bytes(text, batch, how) + weight_copies(text, how) / text.layers if how.checkpointing else 0
    return max(blocks, per_token * batch.tokens + again)


def layer_bytes(text: LanguageShape, batch: MicroBatch, how: Numerics) -> float:
    """Of one language layer over all tokens of the micro-batch, in bytes."""
    size, tokens = how.size, batch.tokens
    norms = 2 * FLOAT * (text.width + 1)
    # Autocast makes each product a copy of its input; in float32 those of one norm share it. Kept for weights' sake.
    inputs = (5 if how.autocast else 2) * text.width + text.queries + text.inner
    gates = 2 * text.inner
    turns = 4 * text.head_dim if how.autocast else 0
    trained = how.text != "frozen"
    adapters = len(text.linears) * how.rank if how.text == "adapters" else 0
    per_token = norms + size * (trained * inputs + gates + turns + adapters)
    return per_token * tokens + attention_bytes(text, batch, how)


def attention_bytes(text: LanguageShape, batch: MicroBatch, how: Numerics) -> float:
    """Of one layer's attention, in bytes.

    Queries, each item's keys and values with the shared head before them, and the result with a number a row and head
    (Dao et al. 2022, arXiv:2205.14135, section 3.1), or all weights.
    """
    size = how.attention_size
    # The head's own attention keeps views, and by them the keys and values of all tokens before they are laid out;
    # where they are cast, copies.
    viewed = batch.tokens if size == how.size else batch.head
    keys = batch.keys + (viewed if batch.head else 0)
    states = size * (text.queries * batch.tokens + 2 * text.keys * keys)
    if how.fused(batch.head + batch.length):
        mask = size * batch.length * (batch.head + batch.length) * (batch.head > 0)
        return states + (size * text.queries + FLOAT * text.heads) * batch.tokens + mask
    return states + size * text.heads * (batch.length * batch.keys + batch.head**2)


def last_layer_bytes(text: LanguageShape, batch: MicroBatch, how: Numerics) -> float:
    """Of the last language layer, in bytes: keys and values of all tokens, the rest of one token an item."""
    size, trained = how.size, how.text != "frozen"
    inputs = (2 if how.autocast else 1) * text.width * trained
    turns = 2 * text.head_dim if how.autocast else 0
    everywhere = FLOAT * (text.width + 1) + size * (inputs + turns)
    pooled = FLOAT * 3 * text.width + size * (trained * (4 * text.width + text.inner) + 2 * text.inner + text.queries)
    return everywhere * batch.tokens + 2 * how.attention_size * text.keys * batch.keys + pooled * batch.items


def shared_bytes(text: LanguageShape, batch: MicroBatch, how: Numerics) -> float:
    """Of what all layers share, in bytes: in float32 the cosines and sines of the positions."""
    return 0 if how.autocast else 2 * FLOAT * text.head_dim * batch.tokens


def weight_copies(text: LanguageShape, how: Numerics) -> float:
    """Weights that a graph keeps in bfloat16 beside their float32 originals, in bytes.

    Autocast casts a weight at each use; the product keeps the copy for its input's gradient.
    """
    if not how.autocast:
        return 0
    own = HALF * text.adapters(how.rank) if how.text == "adapters" else 0
    stored_half = how.frozen_half and how.text != "full"
    return own + (0 if stored_half else HALF * text.layers * text.matrices)


def feature_bytes(shape: Architecture, batch: MicroBatch, how: Numerics) -> float:
    """Of the visual tokens that a frozen tower gives once for the whole step, in bytes."""
    return 0 if how.vision else how.size * shape.language.width * batch.items * batch.picture


def tower_forward_bytes(tower: TowerShape, batch: MicroBatch, how: Numerics) -> float:
    """What comes and goes while a frozen tower looks at the pictures of a micro-batch, in bytes.

    Two inner states and the queries, keys and values of a block, three states in float32, and the pixels twice.
    """
    block = how.size * (2 * tower.inner + 3 * tower.width) + 3 * FLOAT * tower.width
    return 0 if how.vision else (block + 2 * FLOAT * tower.pixels) * batch.patches


def tower_bytes(tower: TowerShape, batch: MicroBatch, how: Numerics) -> float:
    """Of a tower that is trained, in bytes: its blocks, their weights in bfloat16, merger and kernel."""
    size, patches = how.size, batch.patches
    norms = 2 * (FLOAT * tower.width + 2 * FLOAT)
    # Inputs of four products; the activation x * sigmoid(1.702 x) keeps x and the sigmoid.
    inputs = 3 * tower.width + tower.inner
    states, weights = tower_attention_bytes(tower, batch, how)
    block = norms + size * (inputs + 2 * tower.inner) + states + weights
    merger = FLOAT * (tower.width + 2) + 3 * size * tower.width + FLOAT * tower.out / PATCHES_PER_TOKEN
    kernel = size * tower.pixels
    copies = HALF * (tower.depth * tower.matrices + tower.merger) if how.autocast else 0
    return (tower.depth * block + merger + kernel) * patches + copies


def tower_attention_bytes(tower: TowerShape, batch: MicroBatch, how: Numerics) -> tuple[float, float]:
    """Of one block's attention for each patch, in bytes: states, and what stands for the weights."""
    size, patches = how.attention_size, batch.picture * PATCHES_PER_TOKEN
    if not how.fused(patches):
        return 3 * size * tower.width, size * tower.heads * patches
    # Queries, keys and the result; values too, which are a view of all three before rotation unless they are cast.
    values = 3 if size == how.size else 1
    return (3 + values) * size * tower.width, FLOAT * tower.heads
