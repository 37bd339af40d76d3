"""Asks a model by a prompt, through the journal: what is on record is not asked again, what is useless is asked anew.

Knows how to tell an answer from none; not what it is asked for.
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
    """What answers cost, whether they were asked for just now or are on record: equal for a rerun."""

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
        """Dollars for so many tokens."""
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1e6


class LLMClient:
    """One model with its journal.

    Args:
        model: Whom to ask.
        journal: Where answers are kept; None keeps none, for writers that cost nothing.
        attempts: How often a request is asked whose answers can't be used.
        prices: For the account.

    Attributes:
        sent: Requests that went to the model in the life of this object.
    """

    def __init__(
        self, model: LanguageModel, journal: RequestJournal | None, attempts: int = 2, prices: Prices = Prices()
    ) -> None:
        self._model, self._journal, self._attempts, self._prices = model, journal, attempts, prices
        self._usage = Usage()
        self.sent = 0

    def ask(self, asked: Sequence[CompletionRequest]) -> list[Answer | str]:
        """An answer to each request, or the reason why there is none, as a word or two with dashes.

        Raises:
            FoundryError: See `LanguageModel.complete`.
        """
        answers: list[Answer | str] = ["not-asked"] * len(asked)
        waiting = list(range(len(asked)))
        for attempt in range(self._attempts):
            requests = [replace(asked[place], attempt=attempt) for place in waiting]
            for place, reply in zip(waiting, self._replies(requests), strict=True):
                answers[place] = reply.problem or parse_answer(reply.text, asked[place].prompt.kind)
            waiting = [place for place in waiting if isinstance(answers[place], str)]
            if not waiting:
                break
        return answers

    def take_usage(self) -> Usage:
        """What was used since the last call."""
        usage, self._usage = self._usage, Usage()
        return usage

    def _replies(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        # Without a journal nothing is looked up, so nothing needs a name of its own.
        keyed = self._journal is not None
        keys = [self._key(request) if keyed else str(place) for place, request in enumerate(requests)]
        known = self._journal.get(list(dict.fromkeys(keys)), Completion) if self._journal is not None else {}
        for key in dict.fromkeys(keys):
            if key in known:
                self._account(known[key])
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        names = list(missing)

        def answered(place: int, reply: Completion) -> None:
            self.sent += 1
            known[names[place]] = reply
            if not reply.problem:
                if self._journal is not None:
                    self._journal.put(names[place], asdict(reply))
                self._account(reply)

        self._model.complete(missing.values(), answered)
        return [known[key] for key in keys]

    def _account(self, reply: Completion) -> None:
        cost = self._prices.of(reply.tokens_in, reply.tokens_out)
        self._usage += Usage(1, reply.tokens_in, reply.tokens_out, cost)

    def _key(self, request: CompletionRequest) -> str:
        hints = dict(request.hints) if self._model.reads_hints else {}
        return sha256_json([self._model.name, request.prompt.digest, dict(request.given), hints, request.attempt])
