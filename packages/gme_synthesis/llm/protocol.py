"""The seam between synthesis and language models: requests in, replies out, in the order in which they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pydantic import ConfigDict

from gme_synthesis.llm.prompts import Prompt


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One question to a model.

    Attributes:
        prompt: The prompt file.
        given: Values for its `given`.
        hints: What a writer by rules needs besides; no language model sees them.
        attempt: Counts up when an earlier answer was of no use; it seeds the sampling.
    """

    prompt: Prompt
    given: Mapping[str, str]
    hints: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. With a `problem` there is no text, nothing was paid for, and it may be asked again."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    problem: str = ""


OnCompletion = Callable[[int, Completion], None]
"""Told the place of a request and its reply, once each, as replies arrive. What it records is safe from a kill."""


class LanguageModel(Protocol):
    """Answers requests by JSON text, as the prompt's schema wants it."""

    @property
    def name(self) -> str:
        """Model and sampling settings: what an answer depends on besides the request. Part of the journal's key."""

    @property
    def reads_hints(self) -> bool:
        """Whether an answer depends on the hints of a request, too."""

    def complete(self, requests: Iterable[CompletionRequest], answered: OnCompletion) -> None:
        """Get a reply to each request. Reads `requests` as it goes, and tells a reply before it reads one more.

        Raises:
            FoundryError: Nothing can be asked at all (wrong key, unknown model, budget used up).
        """
