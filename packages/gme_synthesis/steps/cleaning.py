"""Step 0, cleaning of raw passages: HTML, megabytes, empty texts, prompt injection, personal data.

Each problem is refused, repaired or marked, by config, and counted. Cleaning works by patterns; passages that slip
through meet the filters after the writer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gme_data.errors import did_you_mean
from gme_data.settings import Frozen
from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject, Stage
from gme_synthesis.text.characters import readable
from gme_synthesis.text.markup import without_markup

_MAX_READ_CHARS = 200_000
_INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s+(?:\w+\s+){0,3}?"
    r"(?:(?:instruction|prompt|direction|directive|guideline)s?\b"
    r"|(?:above|previous|preceding|prior|earlier)\b\s*(?:$|[,.:;!]|and\b|text\b|messages?\b|context\b|rules?\b|orders?\b))"
    r"|\b(?:system prompt|new instructions?:|respond only with|output only)\b"
    r"|<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
_JOINERS = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
"""Invisible characters that stay, since they spell words and emoji; a prompt injection may hide behind them."""
_PII = {
    "e-mail": re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"),
    "phone": re.compile(r"(?<![\w.,])(?:\+\d{1,3}[\s./-]?)(?:\(?\d{1,5}\)?[\s./-]?){2,5}\d{2,}(?!\w)"
                        r"|(?<![\w.,])\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}(?!\w)"),
}  # fmt: skip


class CleaningConfig(Frozen):
    """Bounds of a passage, and what happens to passages with a problem."""

    min_chars: int = Field(default=30, ge=1)
    """Shorter passages are refused: they hold nothing to ask about."""
    max_chars: int = Field(default=4000, ge=100)
    """Longer passages are cut at the end of a sentence."""
    orders: Literal["drop", "mark"] = "drop"
    """What happens to a passage that gives orders to a language model."""
    personal_data: Literal["mark", "mask", "drop"] = "mark"
    """What happens to e-mail addresses and phone numbers."""
    scripts: tuple[str, ...] = ()
    """Scripts that pass, such as LATIN, CYRILLIC, CJK; with an empty list all do."""

    @field_validator("scripts")
    @classmethod
    def _require_known_scripts(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        upper = tuple(script.upper() for script in scripts)
        if unknown := sorted(set(upper) - known_scripts() if upper else ()):
            near = did_you_mean(unknown[0], known_scripts())
            raise ValueError(f"Unicode has no letters of the script {unknown[0]!r}.{near}")
        return upper

    @model_validator(mode="after")
    def _require_ordered_bounds(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is more than max_chars {self.max_chars}: nothing would pass")
        return self


class Cleaner:
    """Cleans the texts of passages and refuses those that are not fit to ask about."""

    def __init__(self, config: CleaningConfig) -> None:
        self._config = config

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("clean", ("id",), ("text",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`, `marks`. Output columns: `text`, `marks`."""
        for candidate in candidates:
            text, marks = plain_text(candidate.text)
            text, cut = cut_at_sentence(text, self._config.max_chars)
            marks += ["cut"] * (cut and "cut" not in marks)
            reason = self._problem(text)
            if reason:
                yield Reject("clean", reason, candidate.id, text[:200])
                continue
            marks += ["orders"] * _has_injection(text)
            marks += [f"personal:{name}" for name, pattern in _PII.items() if pattern.search(text)]
            if self._config.personal_data == "mask":
                text = mask_personal_data(text)
            yield replace(candidate, text=text, marks=(*candidate.marks, *marks))

    def _problem(self, text: str) -> str:
        config = self._config
        if not text:
            return "empty"
        if len(text) < config.min_chars:
            return "too-short"
        if config.orders == "drop" and _has_injection(text):
            return "orders-to-the-model"
        if config.personal_data == "drop" and any(pattern.search(text) for pattern in _PII.values()):
            return "personal-data"
        if config.scripts and (script := main_script(text)) not in config.scripts:
            return f"script-{script.lower() or 'none'}"
        return ""


def plain_text(text: str) -> tuple[str, list[str]]:
    """Returns one line of text without markup, control characters and runs of white space, and marks of what was done.

    It is for all texts from outside: passages, titles, captions, names, values of facts. It must be applied once, when
    a text is read: ``&amp;lt;`` is the text ``&lt;``, and a second time would make ``<`` of it.
    """
    # A fast path: nothing below changes such a text, and most titles, names and values are one.
    if len(text) <= _MAX_READ_CHARS and text.isascii() and text.isprintable() and "<" not in text and "&" not in text:
        return " ".join(text.split()), []
    marks = []
    if len(text) > _MAX_READ_CHARS:
        text = text[:_MAX_READ_CHARS]
        marks.append("cut")
    text, was_markup = without_markup(text)
    marks += ["html"] * was_markup
    line = " ".join(readable(text).split())
    return line if _JOINERS.sub("", line).strip() else "", marks


def plain_label(text: str) -> str:
    """Returns the text of `plain_text` alone, for a title, name, caption or value."""
    return plain_text(text)[0]


def cut_at_sentence(text: str, max_chars: int) -> tuple[str, bool]:
    """Returns at most `max_chars` characters of `text`, up to the end of a sentence or word, and whether it was cut."""
    if len(text) <= max_chars:
        return text, False
    head = text[:max_chars]
    ends = [head.rfind(mark) + 1 for mark in (". ", "! ", "? ", "。", "। ")]
    # Where the last sentence ends in the first half, too much would be lost: the cut is at a word.
    end = max(ends) if max(ends) > max_chars // 2 else head.rfind(" ")
    return (head[:end] if end > 0 else head).strip(), True


def _has_injection(text: str) -> bool:
    """Says whether a text gives orders to a language model."""
    return bool(_INJECTION.search(_JOINERS.sub("", text)))


def mask_personal_data(text: str) -> str:
    """Replaces e-mail addresses and phone numbers by their kind in brackets."""
    for name, pattern in _PII.items():
        text = pattern.sub(f"[{name}]", text)
    return text


def main_script(text: str) -> str:
    """Returns the script of most letters, as Unicode names it (LATIN, CYRILLIC, CJK, ...); empty without letters."""
    letters = [char for char in text[:1000] if char.isalpha()]
    counts = Counter(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in letters)
    return counts.most_common(1)[0][0] if counts else ""


@cache
def known_scripts() -> frozenset[str]:
    """Returns the scripts that Unicode has letters of: the first words of the letters' names."""
    letters = (chr(code) for code in range(0x30000) if chr(code).isalpha())
    return frozenset(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in letters)
