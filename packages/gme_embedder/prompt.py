"""The prompt of GME, built by hand as the released code does (the chat template file is not used).

Knows strings only; which tokens they become is the tokenizer's business.
"""

from __future__ import annotations

PAD = "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
END = "<|endoftext|>"
VISION_TOKENS = (VISION_START, VISION_END, PAD)

SUFFIX = f"{IM_END}\n{IM_START}assistant\n{END}"


def head(instruction: str) -> str:
    """All that comes before the item. The task instruction takes the place of the default system text."""
    return f"{IM_START}system\n{instruction}{IM_END}\n{IM_START}user\n"


def prompt(instruction: str, text: str | None, *, picture: bool) -> str:
    """The whole prompt: picture first, then the text, nothing between; the last token is the one pooled."""
    vision = f"{VISION_START}{PAD}{VISION_END}" if picture else ""
    return f"{head(instruction)}{vision}{text or ''}{SUFFIX}"
