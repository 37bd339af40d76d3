"""Writers and filters are measured on Atlas: rules are good, and a bad writer is told from a good one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.atlas import open_atlas
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.encoders import load_encoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.quality import _is_gold, measure_filter, measure_quality, measure_writer


def test_rules_are_good_and_the_filter_tells_right_from_wrong(small_atlas: Path, tmp_path: Path) -> None:
    quality = measure_quality(SynthesisConfig(consistency_top_k=5), small_atlas, tmp_path, sample=40, split="train")
    assert quality.writer.answerable > 0.9
    assert quality.writer.gold_answers == 1
    assert quality.writer.leaked == 0
    assert quality.writer.usable > 0.8
    assert quality.filter.filter_recall > 0.9
    assert quality.filter.filter_precision > 0.8


def test_an_answer_is_gold_by_its_words() -> None:
    passage = Candidate("p", "", facts={"capital": "Oslo", "area": "385,207 km2"})
    right, longer, part = (_is_gold(replace(passage, answer=reply)) for reply in ("Oslo", "Oslo in Norway", "s"))
    assert (right, longer, part) == (True, True, False)


class Bad:
    """A writer that leaks every name, and says the wrong answer half of the time."""

    name, reads_hints = "bad", True

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, request in enumerate(requests):
            passage = request.inputs.get("passage", "")
            words = passage.split()
            name = request.hints["title"]
            reply = {"question": f"What of {name} {' '.join(words[2:3])} is it?", "answer": " ".join(words[-1:])}
            if not words:
                reply = {"entity": name, "question": f"{request.inputs['question']} In this country, {name}?"}
            elif number % 2:
                reply["answer"] = "nowhere to be found"
            on_completion(number, Completion(json.dumps(reply)))


def test_a_bad_writer_is_told_from_a_good_one(small_atlas: Path) -> None:
    pool = list(open_atlas(small_atlas).passages())
    encoder = load_encoder("minilm")
    bad = measure_writer(pool[:40], pool, LLMClient(Bad(), None, attempts=1), encoder, 20)
    good = measure_writer(pool[:40], pool, LLMClient(RuleWriter(), None, attempts=1), encoder, 20)
    assert bad.answerable <= 0.5 < good.answerable
    assert bad.leaked == 1
    assert bad.usable == 0 < good.usable
    assert bad.refused["question: answer-not-in-passage"] >= 20
    assert good.openings > bad.openings
    assert measure_filter(pool[:40], pool, encoder, len(pool)).filter_precision == pytest.approx(0.5)
