"""The prompt of GME, built by hand as the released code does (the chat template file is not used).

Knows strings only; the tokenizer decides which tokens they become.
"""

from __future__ import annotations

from collections.abc import Iterable

PAD = "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
END = "<|endoftext|>"
VISION_TOKENS = (VISION_START, VISION_END, PAD)

SUFFIX = f"{IM_END}\n{IM_START}assistant\n{END}"


def prompt_opening(instruction: str) -> str:
    """Returns the prompt up to the item. The task instruction takes the place of the default system text."""
    return f"{IM_START}system\n{instruction}{IM_END}\n{IM_START}user\n"


def prompt(instruction: str, text: str | None, *, picture: bool) -> str:
    """Returns the prompt: the picture first, then the text, nothing between; its last token is the pooled one."""
    vision = f"{VISION_START}{PAD}{VISION_END}" if picture else ""
    return f"{prompt_opening(instruction)}{vision}{text or ''}{SUFFIX}"


def escapes(control_tokens: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Returns what replaces each control token inside a text: the token with a space after its first character.

    So a text about prompts stays a text: it can neither close the user's turn nor open a placeholder for a picture. The
    string is changed, and not how the tokenizer is called, because a chat template can do the same.

    Returns:
        Pairs (token, escaped) in the order in which they are replaced: a longer token before one that it contains.
    """
    ordered = sorted((token for token in control_tokens if len(token) > 1), key=lambda token: (-len(token), token))
    return tuple((token, f"{token[0]} {token[1:]}") for token in ordered)


def escape(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Returns a text without control tokens; any other text comes back as it is."""
    for token, escaped in pairs:
        text = text.replace(token, escaped)
    return text
