"""Step 1, a question from the passage (paper: Doc2Query by an LLM).

The writer here fills question templates from the structured fields that stand in the passage. `QuestionWriter` is the
seam where a language model goes in: it gets the same passage and fact and returns the same drafts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from gme_synthesis.records import Draft, Fact, Passage, Place, Reject, shuffled


class QuestionWriter(Protocol):
    """Writes questions that `passage` answers with `fact.value` and that name `place`."""

    def write(self, fact: Fact, passage: Passage, place: Place) -> Sequence[str]:
        """Distinct questions, best first; empty if nothing can be asked."""


class TemplateWriter:
    """Fills the templates of the fact's field with the place's name.

    Args:
        templates: Templates with ``{place}`` by field.
        per_fact: Questions a fact, each from another template.
        seed: Decides which templates a fact gets.
    """

    def __init__(self, templates: Mapping[str, Sequence[str]], per_fact: int, seed: int) -> None:
        self._templates, self._per_fact, self._seed = templates, per_fact, seed

    def write(self, fact: Fact, passage: Passage, place: Place) -> Sequence[str]:
        """See `QuestionWriter`."""
        mine = shuffled(self._templates.get(fact.field, ()), self._seed, "wording", fact.id)[: self._per_fact]
        return list(dict.fromkeys(template.replace("{place}", place.name) for template in mine))


def write_questions(
    facts: Sequence[Fact], passages: Mapping[str, Passage], places: Mapping[str, Place], writer: QuestionWriter
) -> Iterator[Draft | Reject]:
    """Drafts with `question`, several a fact; a fact is refused if it can't be asked or its passage lacks the answer.

    Output columns: `fact_id`, `wording`, `question`.
    """
    for fact in facts:
        passage = passages[fact.passage_id]
        if fact.value.casefold() not in passage.text.casefold():
            yield Reject("write", "answer-not-in-passage", fact.id, fact.value)
            continue
        questions = writer.write(fact, passage, places[fact.place_id])
        if not questions:
            yield Reject("write", "no-wording-for-field", fact.id, fact.field)
        for number, question in enumerate(questions):
            yield Draft(fact.id, number, question)
