"""The clients that people have, as they come: openai, langchain-openai and litellm against a running `gme serve`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving import data_uri, png, start

pytestmark = [pytest.mark.xdist_group("serve"), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
NAME = "acme/tiny"
TEXTS = ["Santiago", "Lima"]


@pytest.fixture(scope="module")
def python() -> Path:
    """The clients' own Python; `make clients` makes it, here or before."""
    folder = Path(os.environ.get("CLIENTS") or ROOT / ".venv" / "clients")
    if not (folder / ".ready").is_file():
        command = ["make", "clients", f"CLIENTS={folder}", f"PYTHON={sys.executable}"]
        installed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"the clients can't be installed: {installed.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "python"


def environment_of(python: Path, home: Path) -> dict[str, str]:
    """No telemetry, no look at the network, and LangChain's tokenizer finds its table where a wheel carries it."""
    (table,) = python.parents[1].glob("lib/python*/site-packages/llama_index/core/_static/tiktoken_cache")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OPENAI_API_KEY": "any",
        "TIKTOKEN_CACHE_DIR": str(table),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "DO_NOT_TRACK": "1",
    }


@pytest.fixture(scope="module")
def answers(python, home) -> dict[str, dict]:
    server = start(home, "clients", "--name", NAME)
    try:
        command = [str(python), str(Path(__file__).with_name("ask_clients.py")), server.url, NAME, data_uri(png(1))]
        done = subprocess.run(
            command, env=environment_of(python, home), capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]
    finally:
        server.process.terminate()
        assert server.process.wait(60) == 0
    assert server.log.read_text() == ""
    return json.loads(done.stdout.splitlines()[-1])


def same(vectors, expected) -> None:
    np.testing.assert_allclose(np.asarray(vectors, np.float32), expected, atol=1e-6)


def test_openai(answers, embedder):
    got, expected = answers["openai"], embedder.encode(TEXTS)
    assert got["models"] == [NAME]
    assert got["retrieved"] > 1_700_000_000
    for form in ("list", "float"):
        same(got[form], expected)
    same(got["text"], expected[0])
    same(got["null"], expected[1])
    same(got["picture"], embedder.encode([{"image": png(1), "text": "a flag"}], "Find it.")[0])
    assert got["usage"] == sum(len(item.ids) for item in embedder.preparer.tokenise(TEXTS))
    assert got["2048"] == [2048, 2047]


def test_what_openai_makes_of_a_refusal(answers):
    got = answers["openai"]
    refused = {name: (got[name]["kind"], got[name]["status"], got[name]["code"], got[name]["param"]) for name in (
        "no such model", "another", "empty", "dimensions"
    )}  # fmt: skip
    assert refused == {
        "no such model": ("NotFoundError", 404, "model_not_found", "model"),
        "another": ("NotFoundError", 404, "model_not_found", "model"),
        "empty": ("BadRequestError", 400, "empty_text", "input[1]"),
        "dimensions": ("BadRequestError", 400, "dimensions_not_supported", "dimensions"),
    }


def test_langchain(answers, embedder):
    got, expected = answers["langchain"], embedder.encode(TEXTS)
    same(got["documents"], expected)
    same(got["query"], expected[0])
    same(got["instructed"], embedder.encode(TEXTS[:1], "Find it.")[0])


def test_langchain_that_sends_token_ids_learns_which_setting_helps(answers):
    refused = answers["langchain"]["ids"]
    assert (refused["status"], refused["code"], refused["param"]) == (400, "token_ids", "input")
    assert "check_embedding_ctx_length=False" in refused["message"]


def test_litellm(answers, embedder):
    got, expected = answers["litellm"], embedder.encode(TEXTS)
    for form in ("list", "null", "float", "metadata"):
        same(got[form], expected)
    assert (got["bad"]["kind"], got["bad"]["status"]) == ("BadRequestError", 400)
