"""Step 0, passages as the world sends them: HTML, megabytes, nothing at all, orders to the model, personal data.

Each problem is refused, mended or marked, by config, and counted. Judges by patterns; what slips through meets the
filters after the writer.
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
from gme_synthesis.steps.characters import readable
from gme_synthesis.steps.markup import without_markup

_LONGEST_READ = 200_000
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s+(?:\w+\s+){0,3}?"
    r"(?:(?:instruction|prompt|direction|directive|guideline)s?\b"
    r"|(?:above|previous|preceding|prior|earlier)\b\s*(?:$|[,.:;!]|and\b|text\b|messages?\b|context\b|rules?\b|orders?\b))"
    r"|\b(?:system prompt|new instructions?:|respond only with|output only)\b"
    r"|<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
_JOINERS = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
"""Invisible, and kept since they spell words and draw emoji; an order to the model may hide behind them."""
_PII = {
    "e-mail": re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"),
    "phone": re.compile(r"(?<![\w.,])(?:\+\d{1,3}[\s./-]?)(?:\(?\d{1,5}\)?[\s./-]?){2,5}\d{2,}(?!\w)"
                        r"|(?<![\w.,])\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}(?!\w)"),
}  # fmt: skip


class CleaningConfig(Frozen):
    """What a passage must be like."""

    min_chars: int = Field(default=30, ge=1)
    """Shorter passages hold nothing to ask for."""
    max_chars: int = Field(default=4000, ge=100)
    """Longer passages are cut at the end of a sentence."""
    orders: Literal["drop", "mark"] = "drop"
    """What happens to a passage that gives orders to a language model."""
    personal_data: Literal["mark", "mask", "drop"] = "mark"
    """What happens to e-mail addresses and phone numbers."""
    scripts: tuple[str, ...] = ()
    """Scripts that are let through, such as LATIN, CYRILLIC, CJK; empty is all."""

    @field_validator("scripts")
    @classmethod
    def _is_known(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        upper = tuple(script.upper() for script in scripts)
        if unknown := sorted(set(upper) - known_scripts() if upper else ()):
            near = did_you_mean(unknown[0], known_scripts())
            raise ValueError(f"Unicode has no letters of the script {unknown[0]!r}.{near}")
        return upper

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is more than max_chars {self.max_chars}: nothing would pass")
        return self


class Cleaner:
    """See the module's docstring."""

    def __init__(self, config: CleaningConfig) -> None:
        self._config = config

    def stage(self) -> Stage:
        """As a step of a chain."""
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
            marks += ["orders"] * _gives_orders(text)
            found = [name for name, pattern in _PII.items() if pattern.search(text)]
            if self._config.personal_data == "mask":
                text = masked(text)
            yield replace(
                candidate, text=text, marks=(*candidate.marks, *marks, *(f"personal:{name}" for name in found))
            )

    def _problem(self, text: str) -> str:
        config = self._config
        if not text:
            return "empty"
        if len(text) < config.min_chars:
            return "too-short"
        if config.orders == "drop" and _gives_orders(text):
            return "orders-to-the-model"
        if config.personal_data == "drop" and any(pattern.search(text) for pattern in _PII.values()):
            return "personal-data"
        if config.scripts and (script := main_script(text)) not in config.scripts:
            return f"script-{script.lower() or 'none'}"
        return ""


def plain_text(text: str) -> tuple[str, list[str]]:
    """One line of text without markup, control characters and runs of white space, and what was done to it.

    For whatever a stranger wrote: passages, titles, captions, names, values of facts. To be applied once, when it is
    read: ``&amp;lt;`` is the text ``&lt;``, and a second time would make ``<`` of it.
    """
    # Nothing below changes such a text, and most titles, names and values are one.
    if len(text) <= _LONGEST_READ and text.isascii() and text.isprintable() and "<" not in text and "&" not in text:
        return " ".join(text.split()), []
    marks = []
    if len(text) > _LONGEST_READ:
        text = text[:_LONGEST_READ]
        marks.append("cut")
    text, was_markup = without_markup(text)
    marks += ["html"] * was_markup
    line = " ".join(readable(text).split())
    return line if _JOINERS.sub("", line).strip() else "", marks


def plain_label(text: str) -> str:
    """A title, name, caption or value as `plain_text`, without what was done to it."""
    return plain_text(text)[0]


def cut_at_sentence(text: str, longest: int) -> tuple[str, bool]:
    """At most `longest` characters of `text`, to the end of a sentence or word, and whether it was cut."""
    if len(text) <= longest:
        return text, False
    head = text[:longest]
    ends = [head.rfind(mark) + 1 for mark in (". ", "! ", "? ", "。", "। ")]
    end = max(ends) if max(ends) > longest // 2 else head.rfind(" ")
    return (head[:end] if end > 0 else head).strip(), True


def _gives_orders(text: str) -> bool:
    return bool(_ORDERS.search(_JOINERS.sub("", text)))


def masked(text: str) -> str:
    """Addresses and numbers replaced by what they are, in brackets."""
    for name, pattern in _PII.items():
        text = pattern.sub(f"[{name}]", text)
    return text


def main_script(text: str) -> str:
    """The script of most letters, as Unicode names it (LATIN, CYRILLIC, ARABIC, CJK, ...); empty without letters."""
    letters = [char for char in text[:1000] if char.isalpha()]
    counts = Counter(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in letters)
    return counts.most_common(1)[0][0] if counts else ""


@cache
def known_scripts() -> frozenset[str]:
    """First words of the names of all letters."""
    letters = (chr(code) for code in range(0x30000) if chr(code).isalpha())
    return frozenset(unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in letters)
