"""The released embedding code acted out with Hugging Face parts alone: padded batch, no tricks, nothing of ours.

Prompt by hand, PIL resize, transformers' image processor, right padding, cut on the right, last real token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2VLModel
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as processing

CELL = 28 * 28
CLOSING = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
PAD = "<|image_pad|>"


def fetched_size(width: int, height: int) -> tuple[int, int]:
    """Width and height after the first resize, in qwen_vl_utils: unlike transformers' rule, no side rounds to 0."""
    sides = [max(28, round(side / 28) * 28) for side in (width, height)]
    if sides[0] * sides[1] > 16384 * CELL:
        shrink = math.sqrt(width * height / (16384 * CELL))
        sides = [max(28, math.floor(side / shrink / 28) * 28) for side in (width, height)]
    elif sides[0] * sides[1] < 4 * CELL:
        grow = math.sqrt(4 * CELL / (width * height))
        sides = [math.ceil(side * grow / 28) * 28 for side in (width, height)]
    return sides[0], sides[1]


@dataclass(frozen=True)
class Released:
    """A model and how it takes its inputs; the defaults are those of the released scripts."""

    qwen: Qwen2VLModel
    tokenizer: PreTrainedTokenizerFast
    min_tokens: int = 256
    max_tokens: int = 1280
    double: bool = True
    max_length: int = 1800
    keep_closing: bool = True
    mrope: bool = False

    @torch.no_grad()
    def encode(self, items: list[dict], instruction: str = "You are a helpful assistant.") -> Tensor:
        """[n, d] of dicts with ``text`` and ``image`` (a PIL picture)."""
        made = [self._picture(item["image"]) if item.get("image") else None for item in items]
        ids, mask = self._tokens([self._prompt(item, one, instruction) for item, one in zip(items, made, strict=True)])
        embeds = self.qwen.language_model.embed_tokens(ids)
        visual = [self.qwen.visual(*one).pooler_output for one in made if one]
        is_picture = ids == self.tokenizer.convert_tokens_to_ids(PAD)
        if visual:
            embeds[is_picture] = torch.cat(visual)
        positions = torch.arange(ids.shape[1]).expand(3, *ids.shape)
        if self.mrope:
            grids = torch.cat([one[1] for one in made if one])
            positions, _ = self.qwen.get_rope_index(ids, is_picture.long(), image_grid_thw=grids, attention_mask=mask)
        states = self.qwen.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return functional.normalize(states[torch.arange(len(items)), mask.sum(1) - 1], dim=-1)

    def _prompt(self, item: dict, made: tuple[Tensor, Tensor] | None, instruction: str) -> str:
        tokens = int(made[1].prod()) // 4 if made else 0
        vision = f"<|vision_start|>{PAD * tokens}<|vision_end|>" if made else ""
        user = f"{vision}{item.get('text') or ''}"
        return f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{user}{CLOSING}"

    def _tokens(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        rows = self.tokenizer(prompts)["input_ids"]
        closing = self.tokenizer(CLOSING)["input_ids"] if self.keep_closing else []
        cut = [row if len(row) <= self.max_length else row[: self.max_length - len(closing)] + closing for row in rows]
        batch = self.tokenizer.pad({"input_ids": cut}, padding_side="right", return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    def _picture(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Patches [p, 1176] and grid [1, 3]."""
        image = image.convert("RGB")
        if self.double:
            image = image.resize(fetched_size(*image.size))
        processor = processing.Qwen2VLImageProcessorPil(
            min_pixels=self.min_tokens * CELL, max_pixels=self.max_tokens * CELL
        )
        made = processor(images=[image], return_tensors="pt")
        return made["pixel_values"], made["image_grid_thw"]
