"""The way of mteb's GME wrapper, acted out with transformers' own modules: that wrapper needs transformers < 4.52.

Batches of 32 in the order of the data, pictures resized twice and made into float patches by the processor, padding on
the right, an attention mask, all of the model on all of the tokens, positions 0..L-1 on all axes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gme_embedder.checkpoint import Settings, with_inputs
from gme_embedder.embedder import Embedder
from gme_embedder.modeling import smollm
from gme_embedder.modeling.rotary import rotate
from gme_embedder.processing.picture import smart_resize
from gme_embedder.processing.prompt import PAD, VISION_TOKENS, prompt

BATCH = 32
CELL = 28
SHAPE = {
    "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """The wrapper around the model of an embedder.

    `masked` runs the tower as transformers did before 4.52, which the wrapper needs: all pictures of a batch in one
    attention with a mask. Today's transformers, for which it is False, goes through them one by one.
    """

    embedder: Embedder
    masked: bool = False

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], instruction: str | None = None) -> NDArray[np.float32]:
        system = instruction or self.embedder.settings.inputs.default_instruction
        prompts = [prompt(system, text, picture=False) for text in texts]
        return np.concatenate([self._run(prompts[start : start + BATCH]) for start in range(0, len(prompts), BATCH)])

    @torch.inference_mode()
    def pictures(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        return np.concatenate([self._pictures(files[start : start + BATCH]) for start in range(0, len(files), BATCH)])

    def _pictures(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        made = self.processor()(images=[fetched(file) for file in files], return_tensors="pt")
        system = self.embedder.settings.inputs.default_instruction
        counts = (made["image_grid_thw"].prod(1) // 4).tolist()
        prompts = [prompt(system, None, picture=True).replace(PAD, PAD * count) for count in counts]
        dtype = next(self.embedder.model.parameters()).dtype
        tower = self.embedder.model.qwen.visual
        with as_before_4_52(tower, self.masked):
            visual = tower(made["pixel_values"].to(dtype), made["image_grid_thw"]).pooler_output
        return self._run(prompts, visual)

    def processor(self) -> Qwen2VLImageProcessorPil:
        pictures = self.embedder.settings.inputs.pictures
        return Qwen2VLImageProcessorPil(
            min_pixels=pictures.min_image_tokens * CELL**2, max_pixels=pictures.max_image_tokens * CELL**2
        )

    def _run(self, prompts: Sequence[str], visual: Tensor | None = None) -> NDArray[np.float32]:
        tokenizer, language = self.embedder.preparer.tokenizer, self.embedder.model.language
        rows = [one.ids for one in tokenizer.encode_batch(list(prompts))]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        embeds = language.embed_tokens(ids)
        if visual is not None:
            embeds[ids == tokenizer.token_to_id(PAD)] = visual
        positions = torch.arange(longest).expand(3, *ids.shape)
        states = language(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        last = states[torch.arange(len(rows)), mask.sum(1) - 1]
        return functional.normalize(last.float(), dim=-1).numpy()


@contextmanager
def as_before_4_52(tower: nn.Module, masked: bool) -> Iterator[None]:
    """Within it, every patch of a batch attends over every other, those of other pictures masked."""
    attentions = [block.attn for block in tower.blocks] if masked else []
    for attention in attentions:
        attention.forward = partial(masked_attention, attention)
    try:
        yield
    finally:
        for attention in attentions:
            del attention.forward


def masked_attention(
    attention: nn.Module,
    hidden_states: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: object,
) -> Tensor:
    cos, sin = (part[:, None] for part in position_embeddings)
    query, key, value = attention.qkv(hidden_states).view(len(hidden_states), 3, attention.num_heads, -1).unbind(1)
    query, key = rotate(query, (cos, sin)), rotate(key, (cos, sin))
    picture = torch.repeat_interleave(torch.arange(len(cu_seqlens) - 1), cu_seqlens.diff())
    mixed = functional.scaled_dot_product_attention(
        *(part.transpose(0, 1)[None] for part in (query, key, value)),
        attn_mask=(picture[:, None] == picture)[None, None],
    )
    return attention.proj(mixed[0].transpose(0, 1).flatten(1))


def fetched(file: bytes) -> Image.Image:
    """Decode and resize to multiples of 28, as qwen_vl_utils does before the processor sees a picture."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    height, width = smart_resize(image.height, image.width, CELL, 4, 16384)
    return image.resize((width, height))


def random_embedder(dtype: str = "float32") -> Embedder:
    """256 wide, 4 layers; a tower 128 wide of 4 blocks; seeded weights, SmolLM2's tokenizer, the wrapper's limits."""
    tokenizer = smollm.tokenizer(VISION_TOKENS)
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {**SHAPE, "vocab_size": tokenizer.get_vocab_size(), "rope_parameters": rope}
    vision = {"depth": 4, "embed_dim": 128, "num_heads": 4, "mlp_ratio": 4, "hidden_size": SHAPE["hidden_size"]}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    settings = with_inputs(Settings(), {"min_image_tokens": 4})
    return Embedder(Qwen2VLModel(config).eval(), tokenizer, settings, dtype=dtype)
