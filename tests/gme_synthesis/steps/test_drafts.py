"""Drafts of facts and wordings, and the questions that the writer by rules makes of them."""

from __future__ import annotations

from dataclasses import replace

from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import run_stage
from gme_synthesis.steps.drafts import DraftStep
from gme_synthesis.steps.question import QuestionStep

WORDINGS = {"capital": ("What is the capital of {place}?", "{place}: capital?")}


NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)


GAMBIA = replace(NORWAY, id="gm-p", text="The Gambia. Capital: Banjul.", title="The Gambia", fact_ids={})


def test_facts_are_asked_in_several_wordings_and_refused_where_the_passage_lacks_the_answer() -> None:
    drafts, none, _ = run_stage(DraftStep(2).stage(), [NORWAY, GAMBIA, replace(NORWAY, id="x", facts={})])
    assert [(one.fact, one.wording) for one in drafts] == [
        ("no-f", 0), ("no-f", 1), ("gm-p/capital", 0), ("gm-p/capital", 1),
    ]  # fmt: skip
    assert [reject.reason for reject in none] == ["no-facts"]
    client = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    asked, refused, _ = run_stage(QuestionStep(client).stage(), drafts)
    assert {one.question for one in asked} == {"What is the capital of Norway?", "Norway: capital?"}
    assert {one.answer for one in asked} == {"Oslo"}
    assert [reject.subject for reject in refused] == ["gm-p/capital/0", "gm-p/capital/1"]


def test_an_answer_in_the_name_of_a_given_fact_is_no_fault() -> None:
    congo = Candidate("cg", "Congo (Brazzaville). Capital: Brazzaville.", title="Congo (Brazzaville)")
    congo = replace(congo, facts={"capital": "Brazzaville"})
    client = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    drafts, _, _ = run_stage(DraftStep(2).stage(), [congo])
    assert len(run_stage(QuestionStep(client).stage(), drafts)[0]) == 2
    (chosen_by_the_writer,) = run_stage(QuestionStep(client).stage(), [congo])[1]
    assert chosen_by_the_writer.reason == "answer-in-question"


def test_a_fact_has_no_more_wordings_than_its_frames() -> None:
    client = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    drafts, _, _ = run_stage(DraftStep(3).stage(), [NORWAY])
    asked, refused, _ = run_stage(QuestionStep(client).stage(), drafts)
    assert (len(asked), [reject.reason for reject in refused]) == (2, ["wrong-fields"])
