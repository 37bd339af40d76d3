"""`gme promote`, `rollback` and `release` as they are typed, with common mistakes: one message, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from release_miniature import build_workspace
from released_miniature import Finished

from gme_cli.main import run
from gme_release.config import ReleaseConfig
from gme_release.registry.registration import register
from gme_release.release.record import read_record, write_record
from gme_release.release.verify import verify_release
from gme_release.run_facts import RunFacts
from gme_release.tracking.client import open_client

NAME = "gme-tiny"


class Terminal:
    """What a command printed; a mistake of the user is no crash of ours."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def ok(self, *arguments: object) -> str:
        code = run([str(one) for one in arguments])
        found = self._capture.readouterr()
        assert code == 0, found.err
        return found.out

    def refused(self, *arguments: object, code: int = 2) -> str:
        assert run([str(one) for one in arguments]) == code
        message = self._capture.readouterr().err
        assert message.startswith("\nError: ")
        assert "  → " in message
        return message


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_aliases(terminal: Terminal, facts: RunFacts, config: ReleaseConfig, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for command in (["promote", "1"], ["rollback"]):
        assert "No runs recorded" in terminal.refused(*command, "--workspace", nowhere)
    assert not nowhere.exists()

    here = ("--workspace", facts.workspace)
    assert f"{NAME} has no version 1." in terminal.refused("promote", 1, *here)
    register(facts.workspace, config, facts)
    assert "nothing to go back to" in terminal.refused("rollback", *here)
    register(facts.workspace, config, build_workspace(facts.workspace, seed=1))
    message = terminal.refused("promote", "first", *here)
    assert f"{NAME} has no version first." in message
    assert "Versions: 1, 2." in message

    assert terminal.ok("promote", "v1", *here) == f"{NAME}: champion is now version 1, previous is version 2\n"
    assert "was already version 1" in terminal.ok("promote", "1", *here)
    assert json.loads(terminal.ok("rollback", *here, "--json"))["champion"] == "2"

    client = open_client(facts.workspace)
    client.delete_model_version(NAME, "1")
    assert "points at no version" in terminal.refused("rollback", *here)
    assert "Versions: 2." in terminal.refused("promote", 1, *here)
    foreign = client.create_model_version(NAME, "somewhere")
    assert "was not registered by a pipeline" in terminal.refused("promote", foreign.version, *here)
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"


def test_create(terminal: Terminal, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, key = ("release", "create"), ("--key", finished.key)
    nowhere = tmp_path / "nowhere"
    assert "No runs recorded" in terminal.refused(*create, "v2", *key, "--workspace", nowhere)
    assert not nowhere.exists()
    here = ("--workspace", finished.workspace)
    assert "is no private key" in terminal.refused(*create, "v2", "--key", tmp_path / "none.pem", *here)
    assert "never made over" in terminal.refused(*create, "v1", *key, *here)
    monkeypatch.setattr("gme_release.release.create.clean_commit", lambda _: "0" * 40)
    assert "made by other code" in terminal.refused(*create, "v2", *key, *here), "this checkout did not make it"
    assert [path.name for path in finished.release.folder.parent.iterdir()] == [f"{NAME}-v1"]


def test_diff(terminal: Terminal, finished: Finished, copy: Path, tmp_path: Path) -> None:
    released = finished.release.folder
    assert terminal.ok("release", "diff", released, copy) == "The same release.\n"
    record = read_record(copy)
    write_record(copy, record.model_copy(update={"tag": "v2", "overall": 0.75}))
    shown = terminal.ok("release", "diff", released, copy)
    assert shown == f"release: {NAME} v1 -> {NAME} v2\nscore/overall: 0.7 -> 0.75\n"
    assert [change["what"] for change in json.loads(terminal.ok("release", "diff", released, copy, "--json"))] == [
        "release",
        "score/overall",
    ]
    assert "is no release" in terminal.refused("release", "diff", released, tmp_path)
    (copy / "record.json").write_text("{")
    assert "record.json is damaged" in terminal.refused("release", "diff", released, copy)


def test_publish(terminal: Terminal, finished: Finished, copy: Path, tmp_path: Path) -> None:
    released, key = finished.release.folder, ("--key", finished.public)
    hub = tmp_path / "new" / "hub"
    assert f"{hub}: " in terminal.ok("release", "publish", released, "--to", hub, *key)
    assert (hub / "config.json").is_file()
    assert "is not empty" in terminal.refused("release", "publish", released, "--to", hub)
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file" in terminal.refused("release", "publish", released, "--to", file)
    assert "is a file" in terminal.refused("release", "reproduce", released, "--to", file)
    assert "lies in the release" in terminal.refused("release", "publish", released, "--to", released / "hub")
    verify_release(released)
    assert "is missing" in terminal.refused("release", "publish", released, "--to", tmp_path / "b", "--key", "none.pub")
    text = (copy / "record.json").read_text()
    (copy / "record.json").write_text(text.replace('"value":0.6', '"value":0.9'))
    message = terminal.refused("release", "publish", copy, "--to", tmp_path / "b", code=1)
    assert "is not what was released" in message
    assert not (tmp_path / "b").exists()
