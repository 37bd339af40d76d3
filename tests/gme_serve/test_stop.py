"""An end in good order: what was accepted is answered, nothing is left behind, the exit code says so."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest
from serving import KEY, client_of

pytestmark = pytest.mark.xdist_group("serve")


def test_told_to_stop_it_answers_what_it_accepted(servers):
    """Its model waits a second for company: the signal comes while the request waits."""
    server = servers["stopping"]
    answers = []
    with client_of(server.url, KEY) as client:
        assert json.loads(server.said)["model"] == client.get("/healthz").json()["model"] == "acme/tiny"
        assert client.get("/v1/models", headers={"Authorization": ""}).status_code == 401, "GME_API_KEY is heeded"
        assert client.post("/v1/embeddings", json={"input": ["x"] * 4}).status_code == 400, "--max-items is heeded"
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/embeddings", json={"input": "x"})))
        asking.start()
        time.sleep(0.4)
        server.process.send_signal(signal.SIGTERM)
        asking.join(30)
    assert [answer.status_code for answer in answers] == [200]
    assert server.process.wait(30) == 0
    assert server.log.read_text() == ""
    assert KEY not in server.said
