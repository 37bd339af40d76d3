"""Before step 2: makes a draft of each passage for every question to be asked, one for each wording of each fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject, Stage


class DraftStep:
    """Copies each candidate for every fact and wording; a draft keeps one fact of its passage.

    Args:
        wordings: Number of questions about each fact.
    """

    def __init__(self, wordings: int) -> None:
        self._wordings = wordings

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("draft", ("text",), ("fact", "facts"), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `facts`, `fact_ids`. Output columns: `fact`, `wording`, and `facts` with that fact alone."""
        for candidate in candidates:
            facts = sorted(
                (candidate.fact_ids.get(field, f"{candidate.id}/{field}"), field) for field in candidate.facts
            )
            if not facts:
                yield Reject("draft", "no-facts", candidate.id, candidate.text[:200])
            for fact, field in facts:
                for wording in range(self._wordings):
                    value = {field: candidate.facts[field]}
                    yield replace(candidate, facts=value, fact_ids={}, fact=fact, wording=wording)
