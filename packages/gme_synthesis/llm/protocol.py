"""The interface between synthesis and language models: requests in, completions out, in the order of their arrival."""

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
        inputs: Values of the prompt's `inputs`, by name.
        hints: What the writer by rules needs besides the inputs; no language model gets them.
        attempt: Counts the earlier requests whose answers were of no use; it seeds the sampling.
    """

    prompt: Prompt
    inputs: Mapping[str, str]
    hints: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model returned. With a `problem` it has no text and cost nothing, and the request may be sent again."""

    # Completions lie in journals under these names: a field that is renamed would make every paid answer unreadable.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    problem: str = ""


OnCompletion = Callable[[int, Completion], None]
"""Gets the index and the completion of each request, once, as they arrive; what it records is safe from a kill."""


class LanguageModel(Protocol):
    """Answers requests with JSON text that follows the prompt's schema."""

    @property
    def name(self) -> str:
        """Model and sampling settings: what an answer depends on besides the request; part of the journal's key."""

    @property
    def reads_hints(self) -> bool:
        """Whether an answer depends on the hints of a request, too."""

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        """Completes every request. It reads `requests` lazily, and reports a completion before it reads one more.

        Raises:
            FoundryError: No request can be answered (wrong key, unknown model, budget used up).
        """
