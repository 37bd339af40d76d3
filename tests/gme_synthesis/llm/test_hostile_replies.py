"""Replies as nobody should send them: each is an answer or a counted reject, and none stops the run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from bad_server import Answer, Asked, asked_for, chat, serve
from fuzz.harness import try_damaged
from pydantic import ValidationError

from gme_data.errors import FoundryError
from gme_data.settings import parse_config
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.llm.answers import EntityAnswer, QuestionAnswer, parse_answer
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.endpoint import Endpoint, EndpointConfig, _parse_completion, _parse_retry_after
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Completion, CompletionRequest
from gme_synthesis.steps.fetching import FetchConfig, Fetcher
from gme_synthesis.steps.web_search import WebSearch, WebSearchConfig
from gme_synthesis.text.characters import readable

GOOD = json.dumps({"answer": "Oslo", "question": "What is the capital of Norway?"})
WHOLE = chat(GOOD, prompt_tokens=7, completion_tokens=3).body


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"prompt_tokens": 7', b'"prompt_tokens": Infinity', "reply-not-json"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": NaN', "reply-not-json"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": 1e999', "reply-not-json"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": ' + b"9" * 5000, "reply-not-json"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": 9223372036854775807', "reply-wrong-fields"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": -1', "reply-wrong-fields"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": "7"', "reply-wrong-fields"),
        (b'"prompt_tokens": 7', b'"prompt_tokens": true', "reply-wrong-fields"),
        (b'{"prompt_tokens": 7, "completion_tokens": 3}', b"Infinity", "reply-not-json"),
        (b'{"prompt_tokens": 7, "completion_tokens": 3}', b"[]", "reply-wrong-fields"),
        (b'"assistant"', b'"\\ud800"', "reply-not-json"),
        (b'"assistant"', b'"\xed\xa0\x80"', "reply-not-json"),
        (b'"assistant"', b"[" * 90 + b"]" * 90, "reply-not-json"),
        (b'"message"', b'"massage"', "reply-wrong-fields"),
        (b'"content": "', b'"content": 7, "x": "', "reply-wrong-fields"),
    ],
)
@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_a_reply_of_the_wrong_shape_is_a_reject(old: bytes, new: bytes, problem: str) -> None:
    assert old in WHOLE
    assert _parse_completion(WHOLE.replace(old, new), b"") == Completion("", problem=problem)
    assert _parse_completion(WHOLE, b"").text == GOOD


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("What is the capital of <b>Norway</b>?", "markup"),
        ("What is <img src=x onerror=alert(1)> in Norway?", "markup"),
        ("What is <script>alert(1)</script>?", "markup"),
        ("What is <script src=//x.example in Norway?", "markup"),
        ("What is &lt;script&gt; in Norway?", "markup"),
        ("What is <!-- hidden --> in Norway?", "markup"),
        ("What is the capital\0 of Norway?", "control-characters"),
        ("What is the \x1b[31mcapital of Norway?", "control-characters"),
        ("What is the \x85capital of Norway?", "control-characters"),
        ("What is the \ud800capital of Norway?", "invalid-json"),
    ],
)
@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_an_answer_with_markup_or_controls_is_a_reject(question: str, problem: str) -> None:
    assert parse_answer(json.dumps({"answer": "Oslo", "question": question}), QuestionAnswer) == problem


@pytest.mark.parametrize(
    "question",
    [
        "Is 3 < 4, and 5 > 2?",
        "What does a List<String> hold?",
        "If a <b and c> d, what is e?",
        "Who runs AT&T & sons?",
        "What does a --> b mean?",
        "What is\nthe capital\tof Norway?",
        "पुरुषों‍ का प्रश्न क्या है?",
    ],
)
def test_a_question_of_plain_text_is_none(question: str) -> None:
    found = parse_answer(json.dumps({"answer": "Oslo", "question": question}), QuestionAnswer)
    assert isinstance(found, QuestionAnswer)
    assert found.question == " ".join(question.split())


@pytest.mark.parametrize(
    "text",
    [
        '{"entity": "Oslo", "question": "Where is this city?", "n": Infinity}',
        '{"entity": "Oslo", "question": "Where is this city?", "n": ' + "9" * 5000 + "}",
        '{"entity": "Oslo", "question": "Where is this city?", "n": ' + "[" * 90 + "]" * 90 + "}",
    ],
)
@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_json_that_is_not_strict_is_a_reject(text: str) -> None:
    assert parse_answer(text, EntityAnswer) == "invalid-json"


@pytest.mark.parametrize(
    ("question", "as_read"),
    [
        ("What is the cap\ufeffital of Nor\u00adway?", "What is the capital of Norway?"),
        ("What is the \u202ecapital\u202c of Norway?", "What is the capital of Norway?"),
        ("What is\u200bthe capital of\ue000 Norway?", "What is the capital of Norway?"),
        ("\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645?", "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645?"),
    ],
)
@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_what_is_invisible_in_an_answer_goes_and_joiners_that_spell_words_stay(question: str, as_read: str) -> None:
    answer = parse_answer(json.dumps({"question": question, "answer": "Oslo"}), QuestionAnswer)
    assert isinstance(answer, QuestionAnswer)
    assert answer.question == as_read


@pytest.mark.hardening("fuzz", "Z5", "replies of models and search services")
def test_no_mutated_reply_raises_and_what_passes_can_be_put_on_record() -> None:
    def read(data: bytes) -> None:
        reply = _parse_completion(data, b"x" * 100)
        assert reply.problem or 0 <= reply.tokens_in < 2**31
        answer = parse_answer(reply.text, QuestionAnswer)
        if isinstance(answer, QuestionAnswer):
            assert answer.model_dump_json().encode()
            assert readable(answer.question) == answer.question

    assert try_damaged(WHOLE, read, share=10, fields=True) == 0, "what does not fit is counted, not raised"


@pytest.mark.parametrize(
    "header",
    ["", "x", "nan", "inf", "-1", "9" * 400, "Mon, 99 Foo 99999 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"],
)
def test_a_wait_is_never_an_error(header: str) -> None:
    wait = _parse_retry_after(header)
    assert wait is None or wait >= 0


@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_hostile_replies_are_counted_and_the_others_go_on(tmp_path: Path) -> None:
    hostile = {
        "Passage 1": WHOLE.replace(b"7", b"Infinity"),
        "Passage 2": chat('{"answer": "a", "question": "What is \\ud800 this?"}').body,
        "Passage 3": chat('{"answer": "a", "question": "What is <b>this</b>?"}').body,
        "Passage 4": b"[" * 200_000,
    }

    def reply(asked: Asked) -> Answer:
        passage = asked_for(asked).splitlines()[1]
        return Answer(body=hostile.get(passage, WHOLE))

    with serve(reply) as stub:
        model = Endpoint(EndpointConfig(url=f"{stub.url}/v1", backoff_seconds=0.01, retries=1))
        requests = [CompletionRequest(load_prompt("question"), {"passage": f"Passage {n}"}) for n in range(6)]
        answers = LLMClient(model, RequestJournal(tmp_path)).ask(requests)
        model.close()
    assert [one for one in answers if isinstance(one, str)] == [
        "reply-not-json", "invalid-json", "markup", "reply-not-json",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/v1/chat/completions", "/elsewhere", "https://evil.example/x"])
@pytest.mark.hardening("attacks", "A12", "Replies of a language model")
def test_no_passage_follows_a_redirect(status: int, to: str) -> None:
    with serve(lambda _: Answer(body=WHOLE)) as other:
        moved = Answer(status, headers={"Location": to.format(port=other.port)})
        with serve(lambda _: moved) as stub:
            model = Endpoint(EndpointConfig(url=f"{stub.url}/v1", retries=0))
            with pytest.raises(FoundryError, match=rf"redirects to .*\(status {status}\)"):
                model.complete([CompletionRequest(load_prompt("question"), {"passage": "secret"})], lambda *_: None)
            model.close()
        assert len(stub.asked) == 1
    assert not other.asked


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_LLM_KEY", "canary\r\nX-Evil: 1")
    model = Endpoint(EndpointConfig(url="http://127.0.0.1:9/v1", retries=0))
    with pytest.raises(FoundryError, match="The key in GME_LLM_KEY has characters") as caught:
        model.complete([CompletionRequest(load_prompt("question"), {"passage": "p"})], lambda *_: None)
    assert "canary" not in str(caught.value)
    model.close()


def test_a_damaged_answer_on_record_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(lambda _: Answer(body=WHOLE)) as stub:
        model = Endpoint(EndpointConfig(url=f"{stub.url}/v1"))
        requests = [CompletionRequest(load_prompt("question"), {"passage": f"p{n}"}) for n in range(3)]
        journal = RequestJournal(tmp_path)
        first = LLMClient(model, journal).ask(requests)
        journal.close()
        with sqlite3.connect(tmp_path / "answers-0.sqlite") as file:
            keys = [key for (key,) in file.execute("SELECT key FROM answers")]
            for key, value in zip(keys[:2], (b'{"text": "\xff"}', b'{"text": 7, "tokens_in": "x"}'), strict=True):
                file.execute("UPDATE answers SET value = CAST(? AS TEXT) WHERE key = ?", (value, key))
        again = LLMClient(model, RequestJournal(tmp_path))
        assert again.ask(requests) == first
        assert again.sent == 2
        assert "2 answer(s)" in caplog.text
        assert LLMClient(model, RequestJournal(tmp_path)).ask(requests) == first
        assert len(stub.asked) == 5
        model.close()


SERVICES = ("writer.endpoint.url", "search.web.url")


@pytest.mark.parametrize("field", SERVICES)
@pytest.mark.parametrize(
    "address",
    [
        "http://user:canary@host.example/v1",
        "http://canary@host.example/v1",
        "https://host.example/v1?api_key=canary",
        "https://host.example/v1#canary",
        "http://host.example:80@canary.example/",
    ],
)
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_credentials_in_an_address_are_refused_when_the_config_is_read_and_not_shown(field: str, address: str) -> None:
    section = {"writer.endpoint.url": {"kind": "endpoint", "endpoint": {"url": address}}}.get(field)
    raw = {"writer": section} if section else {"search": {"by": "web", "web": {"url": address}}}
    with pytest.raises(FoundryError, match=rf"{field}: an address without user") as caught:
        parse_config(raw, SynthesisConfig, where="own.yaml")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://[", "http://host:99999/", "http://a b/", "x", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="an address such as"):
        EndpointConfig(url=address)


def test_secrets_among_the_parameters_of_a_search_are_refused() -> None:
    with pytest.raises(FoundryError, match="api_key looks like a secret") as caught:
        parse_config({"url": "http://host", "parameters": {"api_key": "canary"}}, WebSearchConfig, where="own.yaml")
    assert "canary" not in str(caught.value)
    assert WebSearchConfig(url="http://host", parameters={"keywords": "x", "safe": "on"})


def test_a_search_service_that_redirects_elsewhere_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GME_SEARCH_KEY", "canary")
    with serve(lambda _: Answer(body=b'{"items": []}')) as other:
        moved = Answer(307, headers={"Location": f"{other.url}/search"})
        with serve(lambda _: moved) as stub:
            service = Fetcher(FetchConfig(obey_robots_txt=False), allowed=lambda _: True)
            config = WebSearchConfig(url=f"{stub.url}/search")
            search = WebSearch(config, RequestJournal(tmp_path), service, service, lambda _: None)
            assert search.find(["Alfa"], 5) == [[]]
            assert search.problems == {"search-redirect-elsewhere": 1}
            service.close()
        assert not other.asked


@pytest.mark.hardening("fuzz", "Z5", "replies of models and search services")
def test_no_mutated_answer_of_a_search_service_raises(tmp_path: Path) -> None:
    item = {"link": "http://192.0.2.1/a.png", "licence": "CC0-1.0", "robots": "index"}
    whole = json.dumps({"items": [item, {**item, "licence": None}]}).encode()
    fetcher = Fetcher(FetchConfig(obey_robots_txt=False, timeout_seconds=1))
    search = WebSearch(WebSearchConfig(url="http://host"), RequestJournal(tmp_path), fetcher, fetcher, lambda _: None)
    from gme_synthesis.steps.fetching import FetchedFile

    def read(data: bytes) -> None:
        for hit in search._parse_answer(FetchedFile(data, "http://host")) or ():
            assert hit.picture.isprintable()
            assert json.dumps([hit.picture, hit.licence, hit.robots], ensure_ascii=False).encode()

    assert try_damaged(whole, read, share=4, fields=True) == 0
    assert search.problems.keys() == {"search-not-json", "search-wrong-fields"}
    fetcher.close()
