"""Asks a server the way people do: by openai, LangChain and litellm. Run by their own Python; prints JSON.

Arguments: the server's address, the name of its model, a picture as a data: URI.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable

_connect = socket.socket.connect


def _connect_within(opened, address):
    """Only this machine: none of these libraries has a reason to ask another."""
    if opened.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        raise PermissionError(f"asked for {address}")
    return _connect(opened, address)


socket.socket.connect = _connect_within
# Behind the guard: some of them would look for news while they are imported.
import litellm  # noqa: E402
import openai  # noqa: E402
from langchain_openai import OpenAIEmbeddings  # noqa: E402

litellm.telemetry = False
litellm.suppress_debug_info = True
TEXTS = ["Santiago", "Lima"]


def error_of(ask: Callable[[], object]) -> dict[str, object]:
    """What a client makes of a refusal."""
    try:
        ask()
    except openai.APIStatusError as error:
        kind, body = type(error).__name__, error.body
        return {"kind": kind, "status": error.status_code, **(body if isinstance(body, dict) else {"body": body})}
    raise AssertionError("was not refused")


def with_openai(url: str, name: str, picture: str) -> dict[str, object]:
    client = openai.OpenAI(base_url=f"{url}/v1", max_retries=0)
    create = client.embeddings.create
    many = create(model=name, input=[f"text {number}" for number in range(2048)])
    nulls = {"encoding_format": None, "dimensions": None}
    item = {"input": [{"image": picture, "text": "a flag"}], "instruction": "Find it."}
    return {
        "models": [model.id for model in client.models.list()],
        "retrieved": client.models.retrieve(name).created,
        "no such model": error_of(lambda: client.models.retrieve("no/such")),
        "text": create(model=name, input=TEXTS[0]).data[0].embedding,
        "list": [row.embedding for row in create(model=name, input=TEXTS).data],
        "float": [row.embedding for row in create(model=name, input=TEXTS, encoding_format="float").data],
        "null": create(model=name, input="Lima", extra_body=nulls).data[0].embedding,
        "picture": create(model=name, input=[], extra_body=item).data[0].embedding,
        "usage": create(model=name, input=TEXTS, user="somebody", timeout=30).usage.total_tokens,
        "2048": [len(many.data), many.data[2047].index],
        "empty": error_of(lambda: create(model=name, input=["a", ""])),
        "another": error_of(lambda: create(model="text-embedding-3-small", input="a")),
        "dimensions": error_of(lambda: create(model=name, input="a", dimensions=7)),
    }


def with_langchain(url: str, name: str) -> dict[str, object]:
    def embeddings(**more: object) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(model=name, base_url=f"{url}/v1", max_retries=0, **more)

    texts = embeddings(check_embedding_ctx_length=False)
    return {
        "documents": texts.embed_documents(TEXTS),
        "query": texts.embed_query(TEXTS[0]),
        "instructed": embeddings(
            check_embedding_ctx_length=False, model_kwargs={"extra_body": {"instruction": "Find it."}}
        ).embed_query(TEXTS[0]),
        "ids": error_of(lambda: embeddings().embed_documents(TEXTS)),
    }


def with_litellm(url: str, name: str) -> dict[str, object]:
    def ask(**more: object) -> list[list[float]]:
        answer = litellm.embedding(model=f"openai/{name}", api_base=f"{url}/v1", api_key="any", **more)
        return [row["embedding"] for row in answer.data]

    return {
        "list": ask(input=TEXTS),
        "null": ask(input=TEXTS, encoding_format=None),
        "float": ask(input=TEXTS, encoding_format="float"),
        "metadata": ask(input=TEXTS, extra_body={"input_type": "query", "truncate_prompt_tokens": 5}),
        "bad": error_of(lambda: ask(input=["a", ""])),
    }


if __name__ == "__main__":
    url, name, picture = sys.argv[1:]
    answers = {
        "openai": with_openai(url, name, picture),
        "langchain": with_langchain(url, name),
        "litellm": with_litellm(url, name),
    }
    sys.stdout.write(json.dumps(answers) + "\n")
