"""Before step 2: of each passage as many drafts as there are questions to ask, one for each wording of each fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject, Stage


class DraftStep:
    """Makes drafts; all that a draft has beside its passage is one fact, and which wording it is asked in.

    Args:
        wordings: Questions about each fact.
    """

    def __init__(self, wordings: int) -> None:
        self._wordings = wordings

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("draft", ("text",), ("fact", "facts"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `facts`, `fact_ids`. Output columns: `fact`, `wording`, `facts` of one."""
        for one in candidates:
            named = sorted((one.fact_ids.get(field, f"{one.id}/{field}"), field) for field in one.facts)
            if not named:
                yield Reject("draft", "no-facts", one.id, one.text[:200])
            for fact, field in named:
                for wording in range(self._wordings):
                    yield replace(one, facts={field: one.facts[field]}, fact_ids={}, fact=fact, wording=wording)
