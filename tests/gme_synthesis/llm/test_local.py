"""Causal language models in this process: one with random weights, and SmolLM2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import save_language_model

from gme_data.errors import FoundryError
from gme_synthesis.llm.local import LocalConfig, LocalModel
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Completion, CompletionRequest


def test_any_causal_model_can_write_in_this_process(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    model = LocalModel(LocalConfig(path=str(tmp_path), batch=2))
    requests = [CompletionRequest(load_prompt("entity"), {"question": f"Where is number {n}?"}) for n in range(3)]
    replies: dict[int, Completion] = {}
    model.complete(requests, replies.__setitem__)
    assert sorted(replies) == [0, 1, 2]
    assert all(set(json.loads(reply.text)) <= {"entity", "question"} for reply in replies.values())
    assert all(reply.tokens_in > 50 and reply.tokens_out > 0 for reply in replies.values())
    with pytest.raises(FoundryError, match="not a language model"):
        LocalModel(LocalConfig(path=str(tmp_path / "nowhere"))).complete(requests, replies.__setitem__)


def test_smollm_writes_questions_from_its_package() -> None:
    model = LocalModel(LocalConfig(batch=2))
    passages = (
        "The Eiffel Tower is a wrought-iron lattice tower in Paris, built for the world's fair of 1889.",
        "Marie Curie was a Polish and French physicist who won the Nobel Prize in Physics in 1903.",
    )
    replies: dict[int, Completion] = {}
    model.complete(
        [CompletionRequest(load_prompt("question"), {"passage": one}) for one in passages], replies.__setitem__
    )
    questions = [json.loads(replies[n].text)["question"] for n in range(2)]
    assert all(question.endswith("?") for question in questions)
    assert "Eiffel" in questions[0]
