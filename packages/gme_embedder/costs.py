"""Parameters and floating point operations of a Qwen2-VL embedder, from its architecture alone.

Arithmetic on shapes; no weights are read and torch is not imported. A multiplication and an addition are two
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
from gme_embedder.config import SPATIAL_MERGE_SIZE, ModelConfig

PATCHES_PER_TOKEN = SPATIAL_MERGE_SIZE**2
"""The tower merges this many patches into one visual token."""
_CHANNELS, _FRAMES = 3, 2  # of the tower's first kernel; a still picture fills both frames
_MODEL_TYPE = "qwen2_vl"


@dataclass(frozen=True, slots=True)
class LanguageShape:
    """The language part: a token table, layers of grouped-query attention and SwiGLU, and a final norm.

    Attributes:
        vocabulary: Rows of the token table.
        width: Size of a token's state, and of an embedding.
        inner: Size of the feed-forward's hidden layer.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Size of a head.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def queries(self) -> int:
        """Size of all query heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Size of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

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
        """Parameters without the token table: matrices, three biases and two norms a layer, and the final norm."""
        return self.layers * (self.matrices + self.queries + 2 * self.keys + 2 * self.width) + self.width

    def adapters(self, rank: int) -> int:
        """Returns the parameters of LoRA on every linear layer (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""
        return self.layers * rank * sum(rows + columns for rows, columns in self.linears.values())


@dataclass(frozen=True, slots=True)
class TowerShape:
    """Qwen2-VL's vision tower: a kernel over patches, transformer blocks with biases, and a merger of 2x2 patches.

    Attributes:
        depth: Blocks.
        width: Size of a patch's state.
        inner: Size of the feed-forward's hidden layer.
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
        return (PATCHES_PER_TOKEN * self.width) ** 2 + PATCHES_PER_TOKEN * self.width * self.out

    @property
    def parameters(self) -> int:
        """Parameters: the kernel, blocks with six biases and two norms, and a merger with two biases and a norm."""
        block = self.matrices + 5 * self.width + self.inner + 4 * self.width
        merger = self.merger + PATCHES_PER_TOKEN * self.width + self.out + 2 * self.width
        return _FRAMES * self.pixels * self.width + self.depth * block + merger


@dataclass(frozen=True, slots=True)
class Architecture:
    """Both parts of an embedder; it has no language modelling head."""

    language: LanguageShape
    tower: TowerShape

    @property
    def parameters(self) -> int:
        """Parameters of both parts."""
        return self.language.table + self.language.parameters + self.tower.parameters


# From their config.json. 2B ties its lm_head to the token table; 7B has a separate one, which no embedder loads.
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
"""Architectures of published models by their name on the Hugging Face hub, so that none is downloaded for it."""


def architecture_of(model: str) -> Architecture:
    """Returns the shapes of a model folder, by its config.json, or of a published model.

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
    """Returns the shapes of the tiny model: the first layers of SmolLM2-135M-Instruct and a small tower."""
    width, tower = 576, config.tower  # SmolLM2's config.json; three vision tokens are added to its vocabulary
    language = LanguageShape(49_152 + 3, width, 1536, config.text_layers, 9, 3, 64)
    inner = tower.width * tower.mlp_ratio
    return Architecture(
        language, TowerShape(tower.depth, tower.width, inner, tower.heads, config.inputs.pictures.patch, width)
    )


class _TextConfig(BaseModel):
    """The fields of the language part that decide its shape; a config.json has many others."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None


class _VisionConfig(BaseModel):
    """The fields of the tower that decide its shape, with the defaults of transformers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    embed_dim: PositiveInt = 1280
    mlp_ratio: float = Field(default=4, gt=0, le=64)
    depth: PositiveInt = 32
    num_heads: PositiveInt = 16
    patch_size: PositiveInt = 14


def _read(path: Path) -> Architecture:
    raw = read_json(path, dict[str, Any])
    if raw.get("model_type") != _MODEL_TYPE:
        raise FoundryError(
            f"{path} is of a model of type '{raw.get('model_type')}'.",
            hint=f"Costs are known for models of type {_MODEL_TYPE}.",
        )
    # Files of before transformers 4.52 have the language part's fields at the top.
    text = parse_config(
        raw.get("text_config", raw), _TextConfig, where=f"{path} does not describe a model: text_config"
    )
    vision = parse_config(
        raw.get("vision_config"), _VisionConfig, where=f"{path} does not describe a model: vision_config"
    )
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
class EncodingLoad:
    """The work of encoding a set of items, packed without padding.

    Attributes:
        tokens: Tokens that the language part computes.
        sequences: Number of items.
        pairs: Pairs of a token and a token that it attends to, summed over all tokens.
        pooled_pairs: Those pairs of each item's last token alone.
        patches: Patches that the tower computes.
        patch_pairs: Pairs of two patches of one picture.
    """

    tokens: float
    sequences: float
    pairs: float
    pooled_pairs: float
    patches: float = 0
    patch_pairs: float = 0

    def __add__(self, other: EncodingLoad) -> EncodingLoad:
        return EncodingLoad(*(getattr(self, name) + getattr(other, name) for name in EncodingLoad.__slots__))

    def times(self, factor: float) -> EncodingLoad:
        """Returns each count times `factor`."""
        return EncodingLoad(*(getattr(self, name) * factor for name in EncodingLoad.__slots__))


def encoding_load(items: float, length: float, *, prefix: float = 0, visual: float = 0) -> EncodingLoad:
    """Returns the load of equal items. Every token counts against every key of its item, also those that are masked.

    Args:
        items: Number of items.
        length: Tokens of an item without the shared prefix, visual ones among them.
        prefix: Tokens of the prompt that all items share and attend to; computed once and not counted here.
        visual: Visual tokens among `length`.
    """
    keys, patches = prefix + length, visual * PATCHES_PER_TOKEN
    return EncodingLoad(items * length, items, items * length * keys, items * keys, items * patches, items * patches**2)


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
        """Operations of all parts."""
        return self.language + self.attention + self.tower


def forward_flops(shape: Architecture, load: EncodingLoad) -> Flops:
    """Returns the operations of one forward, in FLOP.

    There are two for each weight and token (Kaplan et al. 2020, equation 2.2) and four for each pair and query channel.
    The last layer computes keys and values of all tokens, but query, output projection and feed-forward of the pooled
    ones alone; see `packed_forward`.
    """
    text, tower = shape.language, shape.tower
    key_value = 2 * text.width * text.keys
    matrices = (text.layers - 1) * text.matrices * load.tokens
    language = 2 * (matrices + key_value * load.tokens + (text.matrices - key_value) * load.sequences)
    attention = 4 * text.queries * ((text.layers - 1) * load.pairs + load.pooled_pairs)
    blocks = tower.depth * (2 * tower.matrices * load.patches + 4 * tower.width * load.patch_pairs)
    # The kernel is summed over both frames before it is used, see `tower._embed_patches`: one frame counts.
    kernel = 2 * tower.pixels * tower.width * load.patches
    return Flops(language, attention, blocks + kernel + 2 * tower.merger * load.patches / PATCHES_PER_TOKEN)


def adapter_flops(shape: LanguageShape, rank: int, load: EncodingLoad) -> float:
    """Returns the operations of the adapters' matrices in one forward, in FLOP; last layer as in `forward_flops`."""
    sizes = {name: rank * (rows + columns) for name, (rows, columns) in shape.linears.items()}
    key_value, layer = sizes["k_proj"] + sizes["v_proj"], sum(sizes.values())
    return 2 * (
        (shape.layers - 1) * layer * load.tokens + key_value * load.tokens + (layer - key_value) * load.sequences
    )
