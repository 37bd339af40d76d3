"""What a Qwen2-VL embedder costs by its architecture alone: parameters and floating point operations.

Pure arithmetic on shapes; no weights are read and torch is not imported. A multiplication and an addition are two
operations, and only matrix products count: norms, activations and softmax are some 1 % of them (Kaplan et al. 2020,
arXiv:2001.08361, section 2.1). Does not know how a model is trained, on what, or how fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from gme_data.errors import FoundryError, did_you_mean
from gme_data.settings import parse_config
from gme_data.structured import read_json
from gme_embedder.config import ModelConfig

MERGE = 4
"""Patches of the tower that make one visual token."""
_CHANNELS, _FRAMES = 3, 2  # of the tower's first kernel; a still picture fills both frames
_KIND = "qwen2_vl"


@dataclass(frozen=True, slots=True)
class LanguageShape:
    """The language part: a token table, layers of grouped-query attention and SwiGLU, and a last norm.

    Attributes:
        vocabulary: Rows of the token table.
        width: Size of a token's state, and of an embedding.
        inner: Size of the feed-forward's inside.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head: Size of a head.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int

    @property
    def queries(self) -> int:
        """Size of all query heads together."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Size of all key heads together, and of all value heads."""
        return self.kv_heads * self.head

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of a decoder layer, by its name in transformers."""
        return {
            "q_proj": (self.width, self.queries),
            "k_proj": (self.width, self.keys),
            "v_proj": (self.width, self.keys),
            "o_proj": (self.queries, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }

    @property
    def matrices(self) -> int:
        """Elements of the matrices of one decoder layer."""
        return sum(rows * columns for rows, columns in self.linears.values())

    @property
    def table(self) -> int:
        """Elements of the token table."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Parameters without the token table: matrices, three biases and two norms a layer, and the last norm."""
        return self.layers * (self.matrices + self.queries + 2 * self.keys + 2 * self.width) + self.width

    def adapters(self, rank: int) -> int:
        """Parameters of low-rank adapters on every linear layer (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""
        return self.layers * rank * sum(rows + columns for rows, columns in self.linears.values())


@dataclass(frozen=True, slots=True)
class TowerShape:
    """Qwen2-VL's vision tower: a kernel over patches, transformer blocks with biases, and a merger of 2x2 patches.

    Attributes:
        depth: Blocks.
        width: Size of a patch's state.
        inner: Size of the feed-forward's inside.
        heads: Attention heads.
        patch: Side of a patch in pixels.
        out: Size of a visual token, the width of the language part.
    """

    depth: int
    width: int
    inner: int
    heads: int
    patch: int
    out: int

    @property
    def pixels(self) -> int:
        """Numbers in a patch of a still picture."""
        return _CHANNELS * self.patch**2

    @property
    def matrices(self) -> int:
        """Elements of the matrices of one block."""
        return 4 * self.width**2 + 2 * self.width * self.inner

    @property
    def merger(self) -> int:
        """Elements of the matrices of the merger."""
        return (MERGE * self.width) ** 2 + MERGE * self.width * self.out

    @property
    def parameters(self) -> int:
        """All of them: kernel, blocks with six biases and two norms, merger with two biases and a norm."""
        block = self.matrices + 5 * self.width + self.inner + 4 * self.width
        merger = self.merger + MERGE * self.width + self.out + 2 * self.width
        return _FRAMES * self.pixels * self.width + self.depth * block + merger


@dataclass(frozen=True, slots=True)
class Architecture:
    """Both parts of an embedder. Its language head is no part of it."""

    language: LanguageShape
    tower: TowerShape

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.language.table + self.language.parameters + self.tower.parameters


# From their config.json. 2B ties its head to the token table; 7B has one of its own, which no embedder loads.
_QWEN_2B = Architecture(LanguageShape(151_936, 1536, 8960, 28, 12, 2, 128), TowerShape(32, 1280, 5120, 16, 14, 1536))
_QWEN_7B = Architecture(LanguageShape(152_064, 3584, 18_944, 28, 28, 4, 128), TowerShape(32, 1280, 5120, 16, 14, 3584))
PUBLISHED = {
    "Qwen/Qwen2-VL-2B": _QWEN_2B,
    "Qwen/Qwen2-VL-2B-Instruct": _QWEN_2B,
    "Qwen/Qwen2-VL-7B": _QWEN_7B,
    "Qwen/Qwen2-VL-7B-Instruct": _QWEN_7B,
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": _QWEN_2B,
    "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct": _QWEN_7B,
}
"""Architectures that are known without a download, by their name on the Hugging Face hub."""


def architecture_of(model: str) -> Architecture:
    """The shapes of a model folder, by its config.json, or of a published model.

    Raises:
        FoundryError: Neither a folder nor a known name; a folder of another kind of model.
    """
    if model in PUBLISHED:
        return PUBLISHED[model]
    path = Path(model) / "config.json"
    if not path.is_file():
        raise FoundryError(
            f"The shapes of '{model}' are not known.{did_you_mean(model, PUBLISHED)}",
            hint=f"Give a model folder, or one of {', '.join(PUBLISHED)}.",
        )
    return _read(path)


def tiny_architecture(config: ModelConfig) -> Architecture:
    """The shapes of the tiny model: the first layers of SmolLM2-135M-Instruct under a small tower."""
    width, tower = 576, config.tower  # SmolLM2's config.json; three vision tokens are added to its vocabulary
    language = LanguageShape(49_152 + 3, width, 1536, config.text_layers, 9, 3, 64)
    inner = tower.width * tower.mlp_ratio
    return Architecture(
        language, TowerShape(tower.depth, tower.width, inner, tower.heads, config.inputs.pictures.patch, width)
    )


class _Text(BaseModel):
    """The fields of the language part; a config.json has many others."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None


class _Vision(BaseModel):
    """The fields of the tower, with what transformers takes where one is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    embed_dim: PositiveInt = 1280
    mlp_ratio: float = Field(default=4, gt=0, le=64)
    depth: PositiveInt = 32
    num_heads: PositiveInt = 16
    patch_size: PositiveInt = 14


def _read(path: Path) -> Architecture:
    raw = read_json(path, dict[str, Any])
    if raw.get("model_type") != _KIND:
        raise FoundryError(
            f"{path} is of a model of type '{raw.get('model_type')}'.",
            hint=f"Costs are known for models of type {_KIND}.",
        )
    # Files of before transformers 4.52 have the language part's fields at the top.
    text = parse_config(raw.get("text_config", raw), _Text, where=f"{path} does not describe a model: text_config")
    vision = parse_config(raw.get("vision_config"), _Vision, where=f"{path} does not describe a model: vision_config")
    language = LanguageShape(
        text.vocab_size,
        text.hidden_size,
        text.intermediate_size,
        text.num_hidden_layers,
        text.num_attention_heads,
        text.num_key_value_heads,
        text.head_dim or text.hidden_size // text.num_attention_heads,
    )
    inner = int(vision.embed_dim * vision.mlp_ratio)
    tower = TowerShape(vision.depth, vision.embed_dim, inner, vision.num_heads, vision.patch_size, text.hidden_size)
    return Architecture(language, tower)


@dataclass(frozen=True, slots=True)
class Load:
    """What is encoded: counts of a set of items, packed without padding.

    Attributes:
        tokens: Tokens that the language part computes.
        sequences: Items.
        pairs: Pairs of a token and a token that it attends to, summed over all tokens.
        pooled_pairs: The same of each item's last token alone.
        patches: Patches that the tower computes.
        patch_pairs: Pairs of two patches of one picture.
    """

    tokens: float
    sequences: float
    pairs: float
    pooled_pairs: float
    patches: float = 0
    patch_pairs: float = 0

    def __add__(self, other: Load) -> Load:
        return Load(*(getattr(self, name) + getattr(other, name) for name in Load.__slots__))

    def times(self, factor: float) -> Load:
        """So many times as much of all of it."""
        return Load(*(getattr(self, name) * factor for name in Load.__slots__))


def load_of(items: float, length: float, *, head: float = 0, picture: float = 0) -> Load:
    """The load of equal items. Every token counts against every key of its item, also those that causality hides.

    Args:
        items: How many.
        length: Tokens of an item, visual ones among them, without the prompt's head.
        head: Tokens of the prompt that items share: seen by all of them, computed once and not counted here.
        picture: Visual tokens among `length`.
    """
    keys, patches = head + length, picture * MERGE
    return Load(items * length, items, items * length * keys, items * keys, items * patches, items * patches**2)


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating point operations of one pass, by part.

    Attributes:
        language: Products with the matrices of the language part.
        attention: Scores and weighted sums of the language part.
        tower: Of the vision tower, with its attention.
    """

    language: float
    attention: float
    tower: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.language + self.attention + self.tower


def forward_flops(shape: Architecture, load: Load) -> Flops:
    """Operations of one forward, in FLOP.

    Two a weight and token (Kaplan et al. 2020, equation 2.2) and four a pair and query channel. The last layer has keys
    and values of all tokens, but queries, output projection and feed-forward of the pooled ones alone.
    """
    text, tower = shape.language, shape.tower
    kept = 2 * text.width * text.keys  # of the last layer, for every token
    matrices = (text.layers - 1) * text.matrices * load.tokens
    language = 2 * (matrices + kept * load.tokens + (text.matrices - kept) * load.sequences)
    attention = 4 * text.queries * ((text.layers - 1) * load.pairs + load.pooled_pairs)
    return Flops(language, attention, _tower_flops(tower, load))


def adapter_flops(shape: LanguageShape, rank: int, load: Load) -> float:
    """Operations of the adapters' own matrices in one forward, in FLOP; the last layer as in `forward_flops`."""
    each = {name: rank * (rows + columns) for name, (rows, columns) in shape.linears.items()}
    kept = each["k_proj"] + each["v_proj"]
    whole = sum(each.values())
    return 2 * ((shape.layers - 1) * whole * load.tokens + kept * load.tokens + (whole - kept) * load.sequences)


def _tower_flops(tower: TowerShape, load: Load) -> float:
    blocks = tower.depth * (2 * tower.matrices * load.patches + 4 * tower.width * load.patch_pairs)
    # Both frames of a still picture are summed into one kernel before it is used.
    return blocks + 2 * tower.pixels * tower.width * load.patches + 2 * tower.merger * load.patches / MERGE
