"""An end in good order: what is computed is answered, what waits is sent elsewhere, exit code and log say so."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import KEY, client_of, error_of, until

pytestmark = pytest.mark.xdist_group("serve")

REQUESTS = 50
TEXTS = ["a river of words " * 100] * 4
"""A quarter of a batch."""


@pytest.mark.hardening("attacks", "A6", "SIGTERM with 50 requests in flight")
def test_told_to_stop_it_answers_what_it_computes_and_sends_the_rest_elsewhere(servers):
    server = servers["stopping"]
    with client_of(server.url, KEY) as client, ThreadPoolExecutor(REQUESTS) as pool:
        assert json.loads(server.ready_line)["model"] == client.get("/healthz").json()["model"] == "acme/tiny"
        assert client.get("/v1/models", headers={"Authorization": ""}).status_code == 401, "GME_API_KEY is heeded"
        assert client.post("/v1/embeddings", json={"input": ["x"] * 17}).status_code == 400, "--max-items is heeded"
        pending = [pool.submit(client.post, "/v1/embeddings", json={"input": TEXTS}) for _ in range(REQUESTS)]
        until(lambda: any(future.done() for future in pending), 120)
        server.process.send_signal(signal.SIGTERM)
        stopped_at = time.monotonic()
        answers = [future.result() for future in pending]
    assert server.process.wait(30) == 0
    assert time.monotonic() - stopped_at < 30, "its grace"
    assert server.log.read_text().splitlines() == ["./model: inputs are made as GME's (gme.json)."]
    assert KEY not in server.ready_line
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(503) > REQUESTS / 2, "not all were computed"
    for answer in answers:
        if answer.status_code == 503:
            assert (error_of(answer)["code"], error_of(answer)["type"]) == ("not_ready", "server_error")
            assert int(answer.headers["retry-after"]) > 0
        else:
            assert len(answer.json()["data"]) == len(TEXTS)
