"""`gme serve` before it serves: the plan, a port in use, keys that can't be."""

from __future__ import annotations

import socket

import pytest

from gme_cli.main import run

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(autouse=True)
def _in_home(monkeypatch, home):
    monkeypatch.chdir(home)


def test_the_plan(capsys):
    assert run(["serve", "--model", "./model", "--corpus", "vectors", "--api-key", "secret", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "Would serve ./model as 'model' on 127.0.0.1:8000, searching vectors, with an API key." in output
    assert "secret" not in output


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "clé"])
def test_a_key_that_cannot_be_sent_is_refused(monkeypatch, capsys, key):
    monkeypatch.setenv("GME_API_KEY", key)
    assert run(["serve", "--model", "./model", "--dry-run"]) == 2
    output = capsys.readouterr().err
    assert "GME_API_KEY is empty or holds characters" in output
    assert not key or key not in output


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert run(["serve", "--model", "./no-such-model", "--port", str(port)]) == 1
    assert f"Port {port} is taken." in capsys.readouterr().err


def test_addresses_that_are_none(capsys):
    assert run(["serve", "--model", "./model", "--port", "99999"]) == 2
    assert "expected 0 to 65535" in capsys.readouterr().err
    assert run(["serve", "--model", "./model", "--host", "no.such.host.invalid"]) == 1
    assert "Can't listen on no.such.host.invalid" in capsys.readouterr().err


def test_other_machines_are_not_let_in_without_a_key(monkeypatch, capsys):
    monkeypatch.delenv("GME_API_KEY", raising=False)
    assert run(["serve", "--model", "./model", "--host", "0.0.0.0", "--dry-run"]) == 2  # noqa: S104
    assert "--host 0.0.0.0 lets other machines in, and no API key is set" in capsys.readouterr().err
    monkeypatch.setenv("GME_API_KEY", "one,two")
    assert run(["serve", "--model", "./model", "--host", "0.0.0.0", "--allowed-host", "a.example", "--dry-run"]) == 0  # noqa: S104
    assert "on 0.0.0.0:8000, without a corpus, with an API key." in capsys.readouterr().out


def test_an_allowed_host_that_is_none(capsys):
    assert run(["serve", "--model", "./model", "--allowed-host", "http://a.example", "--dry-run"]) == 2
    assert "--allowed-host http://a.example: expected a name" in capsys.readouterr().err
