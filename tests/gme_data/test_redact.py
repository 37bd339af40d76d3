"""Credentials are taken out wherever a text goes: of addresses, of headers, of the environment, of errors and logs."""

from __future__ import annotations

import base64
import io
import logging
import pickle
import subprocess
import sys
import traceback

import pytest

from gme_data.errors import FoundryError
from gme_data.redact import (
    has_credentials,
    install_redaction,
    redact,
    redact_error,
    redact_value,
    redacted_errors,
    secrets_of,
)

CANARY = "c4nary-0f-a-secret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{CANARY}@host/x", "https://***@host/x"),
        (f"http://{CANARY}@host:5000", "http://***@host:5000"),
        (f"https://{CANARY}:x-oauth-basic@host/x.git", "https://***@host/x.git"),
        (f"https://me:p@{CANARY}@host", "https://***@host"),
        (f"https://me:p/{CANARY}@host", "https://***@host"),
        (f"postgresql+asyncpg://me:{CANARY}@db:5432/prefect?ssl=true", "postgresql+asyncpg://me:***@db:5432/prefect?ssl=true"),
        (f"postgresql://me:p@{CANARY}/w@db/x", "postgresql://me:***@db/x"),
        (f"https://host/x?api_key={CANARY}&page=2", "https://host/x?api_key=***&page=2"),
        (f"https://host/x?page=2&token={CANARY}", "https://host/x?page=2&token=***"),
        (
            f"https://b.s3.amazonaws.com/k?X-Amz-Credential={CANARY}&X-Amz-Date=2&X-Amz-Signature={CANARY}#top",
            "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Date=2&X-Amz-Signature=***#top",
        ),
        (f"https://a.blob.core.windows.net/c?sv=1&sig={CANARY}", "https://a.blob.core.windows.net/c?sv=1&sig=***"),
        (f"host=db user=me password={CANARY} dbname=x", "host=db user=me password=*** dbname=x"),
        (f"connect(password='{CANARY} x')", "connect(password=***)"),
        (f"Authorization: Bearer {CANARY}", "Authorization: ***"),
        (f'{{"Authorization": "Basic {CANARY}=="}}', '{"Authorization": "***"}'),
        (f"sent bearer {CANARY}", "sent bearer ***"),
        (
            f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
            "-----BEGIN EC PRIVATE KEY-----***-----END EC PRIVATE KEY-----",
        ),
    ],
)  # fmt: skip
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    assert redact(text, {}) == shown
    assert redact(f"could not reach '{text}'", {}) == f"could not reach '{shown}'"
    assert redact(shown, {}) == shown
    assert has_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://mlflow@db:5432/mlflow?sslmode=verify-full",
        "abfss://box@account.dfs.core.windows.net/x",
        "sqlite:////home/a@b/runs.db",
        "sqlite:///file:/what%3F/runs.db?uri=true",
        "s3://bucket/prefix",
        "http://127.0.0.1:5000/#/experiments/1?searchFilter=a@b",
        "models:/gme-tiny@champion",
        "train.tokens_per_batch: max_tokens=4096, 12 tokens, keys=3",
        "me@example.org asked for authorization",
        "Send it as the header Authorization: Bearer KEY.",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redact(text, {}) == text


def test_values_of_secret_variables() -> None:
    environment = {
        "HF_TOKEN": CANARY,
        "PREFECT_API_AUTH_STRING": "admin:pa55-w0rd/x",
        "GME_SERVE_KEYS": "key-one-1,key-two-2",
        "GME_WEBHOOK_URL": "https://hooks.example.org/T0/B1/" + CANARY[::-1],
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://me:db-p%40ss@db/x",
        "PGPASSWORD": "pg-s3cret",
        "SSH_AUTH_SOCK": "/run/agent",
        "TOKENIZERS_PARALLELISM": "false",
        "PWD": "/home/me/work",
        "SHORT_KEY": "a",
    }
    header = base64.b64encode(b"admin:pa55-w0rd/x").decode()
    text = f"{CANARY} pa55-w0rd/x pa55-w0rd%2Fx {header} key-two-2 db-p%40ss db-p@ss pg-s3cret T0/B1/{CANARY[::-1]}"
    shown = redact(text.replace("T0/B1", "https://hooks.example.org/T0/B1"), environment)
    assert set(shown.split()) == {"***"}
    kept = "a false /run/agent /home/me/work"
    assert redact(kept, environment) == kept
    assert "" not in secrets_of(environment)


def test_errors_carry_none_wherever_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    error = FoundryError(f"no answer from https://host/?token={CANARY}x", hint=f"try {CANARY}")
    assert CANARY not in f"{error} {error.hint} {pickle.loads(pickle.dumps(error))!r}"  # noqa: S301 - our own
    try:
        try:
            raise ValueError(f"http://{CANARY}@host", 3)
        except ValueError as cause:
            raise OSError(f"password={CANARY}") from cause
    except OSError as raised:
        raised.add_note(f"at https://me:{CANARY}@host")
        assert CANARY not in repr([redact_error(raised), raised.__notes__, raised.__cause__])
    value = {"a": [f"?token={CANARY}"], "b": (f"http://{CANARY}@h", 1, None)}
    assert CANARY not in repr(redact_value(value))


def test_logs_of_every_logger_and_handler() -> None:
    install_redaction()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        logger.warning("no route to %s, try %d", f"https://me:{CANARY}@host", 2)
        logger.warning("clean %s", "words")
        try:
            raise ValueError(f"postgresql://me:{CANARY}@db")
        except ValueError:
            logger.exception("it fell")
        logging.raiseExceptions, before = False, logging.raiseExceptions
        logger.warning("%d", "no number")
        logging.raiseExceptions = before
    finally:
        logger.removeHandler(handler)
    said = stream.getvalue()
    assert CANARY not in said
    assert "https://***@host, try 2" in said
    assert "ValueError: postgresql://me:***@db" in said
    assert "clean words" in said


def test_what_nobody_caught() -> None:
    code = (
        "import threading\nfrom gme_data.environment import set_default_env\nset_default_env()\n"
        f"def fall(): raise ValueError('http://{CANARY}@host')\n"
        "thread = threading.Thread(target=fall); thread.start(); thread.join()\nfall()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("ValueError: http://***@host") == 2
    assert CANARY not in done.stderr.replace(code, "")


class Elsewhere(Exception):
    """Its text is made of what it holds, as those of validators and clients are."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def __str__(self) -> str:
        return f"no route to {self.address}"


def test_errors_lose_their_credentials_before_they_leave() -> None:
    address = "postgresql://me:c4nary0fasecret@db/x"

    def falls(error: Exception) -> None:
        with redacted_errors():
            raise error from OSError(2, "no route", address)

    with pytest.raises(ValueError, match=r"no route to postgresql://me:\*\*\*@db/x"):
        falls(ValueError(f"no route to {address}"))
    with pytest.raises(RuntimeError, match=r"Elsewhere: no route to postgresql://me:\*\*\*@db/x") as told:
        falls(Elsewhere(address))
    assert "c4nary" not in "".join(traceback.format_exception(told.value))
