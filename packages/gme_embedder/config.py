"""What a model is built from and how its inputs are made; all of it is saved beside the weights.

Does not know where weights come from or how they are trained.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from gme_data.settings import Frozen
from gme_embedder.starter import WEIGHTS, shipped_digest

SPATIAL_MERGE_SIZE = 2
"""The towers merge squares of this many patches a side into one visual token."""
Triple = tuple[float, float, float]
EmbeddingDtype = Literal["bfloat16", "float32"]


class PictureConfig(Frozen):
    """How a decoded picture becomes patches."""

    patch: int = Field(default=14, ge=1)
    """Side of a patch in pixels, as the tower was built: 14, or 16 for Qwen3-VL; 2x2 of them are a visual token."""
    fit: Literal["aspect", "square"] = "square"
    """`aspect` keeps the proportions within token limits (as released); `square` gives a picture one of two sizes."""
    side: int = Field(default=56, ge=1)
    """`square`: side in pixels of an ordinary picture; 56 px are 2x2 visual tokens."""
    page_side: int = Field(default=112, ge=1)
    """`square`: side in pixels of a picture that is a page by its size."""
    page_from: int = Field(default=200, ge=1)
    """`square`: a picture whose longer side has at least this many pixels is a page."""
    min_image_tokens: int = Field(default=256, ge=1)
    """`aspect`: smaller pictures are enlarged to this many visual tokens."""
    max_image_tokens: int = Field(default=1280, ge=1)
    """`aspect`: larger pictures are shrunk to this many visual tokens."""
    resize: Literal["once", "double"] = "once"
    """`aspect`: `double` first resizes to whole visual tokens as the released code does."""
    mean: Triple = (0.82, 0.79, 0.75)
    """Mean of each channel over pixels in 0..1. The default is that of drawings on white; `RELEASED` has that of
    photographs."""
    std: Triple = (0.29, 0.30, 0.34)
    """Standard deviation of each channel over pixels in 0..1."""

    @property
    def token_side(self) -> int:
        """Side of a visual token in pixels."""
        return SPATIAL_MERGE_SIZE * self.patch

    @model_validator(mode="after")
    def _sizes_are_consistent(self) -> Self:
        for name in ("side", "page_side"):
            if self.fit == "square" and getattr(self, name) % self.token_side:
                raise ValueError(f"{name} must be a multiple of {self.token_side}, the side of a visual token")
        if self.min_image_tokens > self.max_image_tokens:
            raise ValueError("min_image_tokens must not be larger than max_image_tokens")
        return self


class InputConfig(Frozen):
    """How an item becomes tokens."""

    default_instruction: str = "You are a helpful assistant."
    """System text of candidates, and of queries without an instruction."""
    max_tokens: int = Field(default=256, ge=32)
    """Longer prompts are cut to this; see `truncate`."""
    truncate: Literal["text", "released"] = "text"
    """What is cut from a prompt that is too long. `text`: the end of its text, never the picture or the closing tokens.
    `released`: whatever stands at its end, as in the released code, so that another token is pooled."""
    leading_space: bool = True
    """Whether a space goes before a text, so that its first word has the token that it has inside a text. Small models
    do not know that both are one word; the released models were trained without."""
    positions: Literal["sequential", "mrope"] = "sequential"
    """`sequential`: 0..L-1 on all three rotary axes, as released; `mrope`: the picture grid, as in Qwen2-VL."""
    pictures: PictureConfig = PictureConfig()
    """How pictures are made into patches."""


RELEASED = InputConfig(
    max_tokens=1800,
    leading_space=False,
    pictures=PictureConfig(
        fit="aspect",
        resize="double",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
)
"""Inputs as the released GME models expect them, for folders that don't say otherwise."""


class TowerConfig(Frozen):
    """The small vision tower, trained from scratch."""

    depth: int = Field(default=4, ge=1)
    """Transformer blocks."""
    width: int = Field(default=192, ge=32, multiple_of=32)
    """Size of a patch state."""
    heads: int = Field(default=6, ge=1)
    """Attention heads."""
    mlp_ratio: int = Field(default=4, ge=1)
    """Hidden size of the feed-forward part over `width`."""

    @model_validator(mode="after")
    def _axial_rotary_fits_the_heads(self) -> Self:
        if self.width % (4 * self.heads):
            raise ValueError("width / heads must be a multiple of 4: rotary positions take half a head for each axis")
        return self


class BaseConfig(Frozen):
    """A pretrained model to start from, and limits of its inputs."""

    model: str
    """Folder, or name on the Hugging Face hub, such as ``Qwen/Qwen2-VL-2B-Instruct``."""
    revision: str | None = None
    """Branch, tag or commit on the hub; pin a commit for runs that are to be repeated."""
    max_tokens: PositiveInt = 1800
    """Longer prompts lose the end of their text."""
    min_image_tokens: PositiveInt = 256
    """Smaller pictures are enlarged to so many visual tokens."""
    max_image_tokens: PositiveInt = 1280
    """Larger pictures are shrunk to so many visual tokens."""


class ModelConfig(Frozen):
    """The tiny model: a real Qwen2-VL on the first layers of SmolLM2-135M-Instruct."""

    starter: str | None = None
    """The checkpoint to start from. None: language layers that never saw a picture and a randomly initialised tower.
    ``shipped``: the starter in this package, which our own stage 0 trained on pictures, with the default layers, tower
    and pictures. The resolved value is its sha256, so that another starter gives a step another key."""
    text_layers: int = Field(default=4, ge=1, le=30)
    """How many of the 30 language layers are kept."""
    tower: TowerConfig = TowerConfig()
    """The vision tower."""
    embedding_dtype: EmbeddingDtype = "bfloat16"
    """Precision that the frozen token table is rounded to and stored in; half the bytes for one rounding."""
    inputs: InputConfig = InputConfig()
    """Settings of the prompt and the pictures."""

    @field_validator("starter")
    @classmethod
    def _named_by_digest(cls, starter: str | None) -> str | None:
        # A config that is read back from a record has the digest already.
        if starter is None or re.fullmatch("[0-9a-f]{64}", starter):
            return starter
        if starter != "shipped":
            raise ValueError("starter: 'shipped', or the sha256 of a starter")
        if not WEIGHTS.is_file():
            raise ValueError("starter: this installation has none; make one by `make starter SHIP=1`")
        return shipped_digest()
