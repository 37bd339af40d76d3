"""Sends requests to a model through the journal: recorded answers are reused, useless answers are requested anew.

Knows how to tell an answer from a reply that is none; not what the answers are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from gme_data.digests import sha256_json
from gme_synthesis.llm.answers import Answer, parse_answer
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.protocol import Completion, CompletionRequest, LanguageModel


@dataclass(frozen=True, slots=True)
class Usage:
    """What answers cost. Recorded answers count as well, so a rerun reports the same usage."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.dollars + other.dollars,
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a million tokens."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Returns the price of so many tokens in dollars."""
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1e6


class LLMClient:
    """A language model with its journal.

    Args:
        model: The model that answers.
        journal: Where completions are recorded; None records none, for the writer by rules, which costs nothing.
        attempts: How often a request is sent whose answers can't be used.
        prices: Prices of the model's tokens.

    Attributes:
        sent: Number of requests that this object sent to the model.
    """

    def __init__(
        self, model: LanguageModel, journal: RequestJournal | None, attempts: int = 2, prices: Prices = Prices()
    ) -> None:
        self._model, self._journal, self._attempts, self._prices = model, journal, attempts, prices
        self._usage = Usage()
        self.sent = 0

    def ask(self, requests: Sequence[CompletionRequest]) -> list[Answer | str]:
        """Returns an answer to each request, or the reason why there is none, as a word or two with dashes.

        Raises:
            FoundryError: See `LanguageModel.complete`.
        """
        answers: list[Answer | str] = ["not-asked"] * len(requests)
        unanswered = list(range(len(requests)))
        for attempt in range(self._attempts):
            # The attempt is part of the key and of the seed, so a useless answer is not simply read back.
            retried = [replace(requests[index], attempt=attempt) for index in unanswered]
            for index, completion in zip(unanswered, self._completions(retried), strict=True):
                answers[index] = completion.problem or parse_answer(completion.text, requests[index].prompt.kind)
            unanswered = [index for index in unanswered if isinstance(answers[index], str)]
            if not unanswered:
                break
        return answers

    def take_usage(self) -> Usage:
        """Returns what was used since the last call."""
        usage, self._usage = self._usage, Usage()
        return usage

    def _completions(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Returns a completion of each request; requests of one key are sent once."""
        # Without a journal nothing is looked up, so the index will do for a key and no digest is computed.
        keys = [str(index) if self._journal is None else self._key(request) for index, request in enumerate(requests)]
        distinct = list(dict.fromkeys(keys))
        completions = self._journal.get(distinct, Completion) if self._journal is not None else {}
        for key in distinct:
            if key in completions:
                self._add_usage(completions[key])
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in completions}
        missing_keys = list(missing)

        def on_completion(index: int, completion: Completion) -> None:
            self.sent += 1
            completions[missing_keys[index]] = completion
            # A problem is not recorded: it may pass, and the next run should send the request again.
            if not completion.problem:
                if self._journal is not None:
                    self._journal.put(missing_keys[index], asdict(completion))
                self._add_usage(completion)

        self._model.complete(missing.values(), on_completion)
        return [completions[key] for key in keys]

    def _add_usage(self, completion: Completion) -> None:
        dollars = self._prices.of(completion.tokens_in, completion.tokens_out)
        self._usage += Usage(1, completion.tokens_in, completion.tokens_out, dollars)

    def _key(self, request: CompletionRequest) -> str:
        hints = dict(request.hints) if self._model.reads_hints else {}
        return sha256_json([self._model.name, request.prompt.digest, dict(request.inputs), hints, request.attempt])
