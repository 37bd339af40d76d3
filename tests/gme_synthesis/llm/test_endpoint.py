"""The client of language models against a real server that answers as servers do on bad days."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bad_server import Answer, Asked, Reply, Stub, asked_for, chat, serve

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_synthesis.llm.answers import EntityAnswer, QuestionAnswer
from gme_synthesis.llm.client import LLMClient, Prices
from gme_synthesis.llm.endpoint import Endpoint, EndpointConfig
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Completion, CompletionRequest

GOOD = json.dumps({"answer": "Oslo", "question": "What is the capital of Norway?"})
QUESTION = load_prompt("question")


def requests(number: int) -> list[CompletionRequest]:
    return [CompletionRequest(QUESTION, {"passage": f"Passage {n}"}) for n in range(number)]


def replies_of(model: Endpoint, asked: Iterable[CompletionRequest]) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    model.complete(asked, found.__setitem__)
    return found


@contextmanager
def endpoint(reply: Reply, **settings: Any) -> Iterator[tuple[Endpoint, Stub]]:
    with serve(reply) as stub:
        quick = {"backoff_seconds": 0.01, "timeout_seconds": 2.0, "retries": 2, "concurrency": 8, **settings}
        model = Endpoint(EndpointConfig(url=f"{stub.url}/v1", model="m", **quick))
        try:
            yield model, stub
        finally:
            model.close()


def test_schema_key_and_examples_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_LLM_KEY", "secret")
    with endpoint(lambda asked: chat(GOOD, prompt_tokens=7, completion_tokens=3)) as (model, stub):
        (reply,) = replies_of(model, requests(1)).values()
    (asked,) = stub.asked
    assert (asked.path, asked.headers["Authorization"]) == ("/v1/chat/completions", "Bearer secret")
    assert "secret" not in model.name
    schema = asked.body["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]) == {"answer", "question"}
    assert [turn["role"] for turn in asked.body["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert asked_for(asked) == "<passage>\nPassage 0\n</passage>"
    assert (reply.text, reply.tokens_in, reply.tokens_out) == (GOOD, 7, 3)


def test_many_requests_are_in_flight_and_each_is_answered_once() -> None:
    def echo(asked: Asked) -> Answer:
        return Answer(body=chat(asked_for(asked)).body, hang=0.02)

    with endpoint(echo) as (model, stub):
        replies = replies_of(model, requests(100))
    assert stub.most_together == 8
    assert {n: reply.text for n, reply in replies.items()} == {
        n: f"<passage>\nPassage {n}\n</passage>" for n in range(100)
    }


def test_an_iterator_without_end_is_read_no_further_than_needed() -> None:
    numbers = count()
    endless = (CompletionRequest(QUESTION, {"passage": str(n)}) for n in numbers)

    def enough(number: int, _: Completion) -> None:
        if number >= 20:
            raise FoundryError("enough")

    with endpoint(lambda _: chat(GOOD)) as (model, _), pytest.raises(FoundryError, match="enough"):
        model.complete(endless, enough)
    assert next(numbers) < 40


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (Answer(500), "server-error"),
        (Answer(429, headers={"Retry-After": "0.05"}), "slowed-down"),
        (Answer(400), "status-400"),
        (Answer(body=b"<html>"), "reply-not-json"),
        (Answer(body=b"[" * 100_000), "reply-not-json"),
        (Answer(body=b'{"choices": []}'), "reply-wrong-fields"),
        (Answer(body=b"x" * 1_000_000), "reply-too-large"),
        (Answer(body=b"", hang=0.5), "timeout"),
    ],
)
def test_a_bad_endpoint_is_bounded_and_named(bad: Answer, problem: str) -> None:
    with endpoint(lambda _: bad, timeout_seconds=0.3) as (model, stub):
        (reply,) = replies_of(model, requests(1)).values()
    assert (reply.text, reply.problem) == ("", problem)
    assert len(stub.asked) <= 3


def test_nobody_there() -> None:
    with serve(lambda _: Answer()) as stub:
        gone = stub.url
    model = Endpoint(EndpointConfig(url=gone, backoff_seconds=0.01, retries=1))
    assert [reply.problem for reply in replies_of(model, requests(2)).values()] == ["no-answer"] * 2
    model.close()


def test_retries_wait_as_long_as_told_and_all_of_them_do() -> None:
    def slowed(asked: Asked) -> Answer:
        return Answer(429, headers={"Retry-After": "0.5"}) if asked.number < 8 else chat(GOOD)

    started = time.monotonic()
    with endpoint(slowed) as (model, stub):
        replies = replies_of(model, requests(30))
    assert time.monotonic() - started > 0.5
    assert [reply.text for reply in replies.values()] == [GOOD] * 30
    assert len(stub.asked) == 38


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_retry_can_mend_stops_the_run(status: int) -> None:
    with endpoint(lambda _: Answer(status)) as (model, _), pytest.raises(FoundryError, match=str(status)) as caught:
        replies_of(model, requests(50))
    assert "GME_LLM_KEY" in str(caught.value.hint)


def test_the_budget_stops_the_run_and_what_came_is_kept(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path)
    reply = lambda _: chat(GOOD, prompt_tokens=90, completion_tokens=10)  # noqa: E731
    with endpoint(reply, max_tokens=1000, concurrency=2) as (model, stub):
        with pytest.raises(FoundryError, match="budget"):
            LLMClient(model, journal).ask(requests(100))
        sent = len(stub.asked)
    assert 10 <= sent <= 12
    assert len(journal) >= 10
    with endpoint(reply, max_dollars=1.0, dollars_per_million_in=10_000, dollars_per_million_out=10_000) as (
        model,
        stub,
    ):
        with pytest.raises(FoundryError, match="dollars"):
            replies_of(model, requests(100))
        assert len(stub.asked) <= 8


def test_no_answer_is_paid_for_twice(tmp_path: Path) -> None:
    def reply(asked: Asked) -> Answer:
        bad = "Passage 3" in asked_for(asked)
        return chat("I'm sorry, I can't help." if bad else GOOD, prompt_tokens=10, completion_tokens=2)

    with endpoint(reply) as (model, stub):
        client = LLMClient(model, RequestJournal(tmp_path), attempts=2, prices=Prices(1.0, 2.0))
        first = client.ask([*requests(5), *requests(2)])
        usage = client.take_usage()
        assert len(stub.asked) == client.sent == 6  # 5 passages, one of them twice; what repeats is asked once
        again = LLMClient(model, RequestJournal(tmp_path), attempts=2, prices=Prices(1.0, 2.0))
        assert again.ask([*requests(5), *requests(2)]) == first
        assert again.sent == 0
        assert again.take_usage() == usage
    assert first[3] == "refusal"
    assert isinstance(first[0], QuestionAnswer)
    assert first[5] == first[0]
    assert usage.dollars == pytest.approx((usage.tokens_in + 2 * usage.tokens_out) / 1e6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty-answer"),
        ("As an AI I cannot do that.", "refusal"),
        ("The capital is Oslo.", "invalid-json"),
        ('{"answer": "Oslo", "question": "What', "invalid-json"),
        ('{"answer": "Oslo"}', "wrong-fields"),
        ('{"answer": "Oslo", "question": 3}', "wrong-fields"),
        ("{" + '"a":{' * 5000, "invalid-json"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, text: str, problem: str) -> None:
    with endpoint(lambda _: chat(text)) as (model, _):
        assert LLMClient(model, RequestJournal(tmp_path)).ask(requests(1)) == [problem]


def test_json_in_a_fence_and_fields_too_many_are_taken(tmp_path: Path) -> None:
    text = 'Sure!\n```json\n{"entity": "Oslo", "question": "Where is this city?", "why": 1}\n```'
    with endpoint(lambda _: chat(text)) as (model, _):
        request = CompletionRequest(load_prompt("entity"), {"question": "Where is Oslo?"})
        assert LLMClient(model, RequestJournal(tmp_path)).ask([request]) == [
            EntityAnswer(entity="Oslo", question="Where is this city?")
        ]


def test_a_prompt_that_changed_is_asked_anew(tmp_path: Path) -> None:
    with endpoint(lambda _: chat(GOOD)) as (model, stub):
        journal = RequestJournal(tmp_path)
        changed = QUESTION.model_copy(update={"system": QUESTION.system + " Be brief."})
        for prompt in (QUESTION, changed, QUESTION):
            LLMClient(model, journal).ask([CompletionRequest(prompt, {"passage": "p"})])
        assert len(stub.asked) == 2
        hinted = CompletionRequest(QUESTION, {"passage": "p"}, hints={"title": "Norway"})
        LLMClient(model, journal).ask([hinted])  # hints are not sent, so they change nothing
        assert len(stub.asked) == 2


def test_writers_of_one_journal_read_each_other(tmp_path: Path) -> None:
    one, other = RequestJournal(tmp_path, "1"), RequestJournal(tmp_path, "2")
    one.put("key", {"text": "a"})
    other.put("other", {"text": "b"})
    keys = [*(f"none{n}" for n in range(1200)), "key", "other"]
    assert RequestJournal(tmp_path, "3").get(keys, dict[str, str]) == {"key": {"text": "a"}, "other": {"text": "b"}}


def test_a_file_that_is_no_journal_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "answers-0.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(FoundryError, match=r"answers-0\.sqlite"):
        RequestJournal(tmp_path)


def test_a_journal_that_breaks_after_it_was_opened_is_told(tmp_path: Path) -> None:
    journal = RequestJournal(tmp_path)
    for number in range(2000):
        journal.put(f"{number:064}", {"text": "x" * 200})
    journal.close()
    path = tmp_path / "answers-0.sqlite"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    broken = RequestJournal(tmp_path)
    with pytest.raises(FoundryError, match="can't be used"):
        broken.get([f"{number:064}" for number in range(2000)], dict[str, str])


def test_a_field_of_an_earlier_version_is_told_by_its_new_name() -> None:
    with pytest.raises(FoundryError, match="longest_wait_seconds: this field is called max_wait_seconds now"):
        parse_config({"longest_wait_seconds": 8, "url": "http://localhost"}, EndpointConfig, where="x.yaml")
