"""A secret in every place it can be: it is on no terminal, in no log, crash file, database, artifact or outbox."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from followed_run import start_following

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dvc.config import ensure_dvc_config, remote_url
from gme_release.errors import one_line
from gme_release.registry.champion import find_model
from gme_release.registry.registration import register
from gme_release.run_facts import RunFacts
from gme_release.settings import RecordSettings
from gme_release.tracking.follower import Follower, RunDescription

CANARY = "c4nary0fasecret"
ADDRESSES = (f"https://me:{CANARY}@host/x", f"http://{CANARY}@host", f"https://host/x?api_key={CANARY}")


def files_that_hold(folder: Path, what: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and what.encode() in path.read_bytes()]


@pytest.fixture
def secret_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://me:{CANARY}2@db/prefect")
    yield


@pytest.mark.usefixtures("secret_variables")
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_nothing_that_is_recorded_holds_it(facts: RunFacts, config: ReleaseConfig) -> None:
    """In a configuration and a tag that somebody smuggled it into, in a step's counts, in a verdict's reasons."""
    workspace = facts.workspace
    smuggled = {"endpoint": ADDRESSES[0], "nested": {"list": [CANARY, f"password={CANARY}"]}, "seed": 1}
    plan = RunDescription("k" * 64, f"tiny {ADDRESSES[1]}", "gme-tiny", smuggled, {"gme.note": ADDRESSES[2]})
    follower = Follower(workspace, plan)
    follower.begin_step("train-1", "4 train-1", "a" * 64, smuggled)
    follower.tag({"gme.more": f"{CANARY}2"})
    follower.end_step("train-1", "FINISHED")
    follower.flush()
    told_facts = replace(facts, config=smuggled, tags={"gme.followed": follower.name, "gme.x": ADDRESSES[0]})
    manifests = {name: replace(manifest, config=smuggled) for name, manifest in facts.manifests.items()}
    found = register(workspace, config, replace(told_facts, manifests=manifests, tasks=(ADDRESSES[0],)))
    assert not found.verdict.passed
    follower.close("FAILED")
    assert files_that_hold(workspace, CANARY) == []
    assert files_that_hold(workspace, "https://***@host/x")


@pytest.mark.usefixtures("secret_variables")
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_nothing_that_is_shown_holds_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Terminal and crash file of an error of ours, whose text is another library's; logs of a library."""
    monkeypatch.chdir(tmp_path)

    def falls(*_arguments: object, **_options: object) -> None:
        logging.getLogger("alembic").warning("no route to %s", ADDRESSES[0])
        raise ConnectionError(f"can't connect to postgresql+asyncpg://me:{CANARY}2@db/prefect, or {ADDRESSES[2]}")

    monkeypatch.setattr("gme_cli.main.app", falls)
    assert run(["pipeline"]) == 70
    monkeypatch.setenv("GME_DEBUG", "1")
    assert run(["pipeline"]) == 70
    shown = capsys.readouterr()
    assert "Internal error: ConnectionError: can't connect to postgresql+asyncpg://me:***@db/prefect" in shown.err
    crash = (tmp_path / "runs" / "crash.log").read_text()
    assert "ConnectionError" in crash
    for text in (shown.out, shown.err, crash, caplog.text, one_line(ValueError(f"x {ADDRESSES[0]} {CANARY}"))):
        assert CANARY not in text


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("name", ["GME_MLFLOW_URI", "GME_DVC_REMOTE", "GME_ARTIFACT_ROOT"])
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_addresses_of_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, address: str) -> None:
    monkeypatch.setenv(
        name, address if name == "GME_MLFLOW_URI" else address.replace("https", "s3").replace("http", "s3")
    )
    with pytest.raises(FoundryError, match="keep credentials out") as refused:
        RecordSettings.from_environment()
    assert name in str(refused.value)
    assert CANARY not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"


@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_addresses_of_files_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipeline's file, in DVC's configuration, and of a store that is not Amazon's."""
    address = f"s3://key:{CANARY}@bucket"
    arguments = ["plan", "--workspace", str(tmp_path), "--set", f"release.remote_url={address}"]
    assert run(arguments) == 2
    shown = capsys.readouterr().err
    assert "release.remote_url" in shown
    assert "AWS_SECRET_ACCESS_KEY" in shown
    assert CANARY not in shown
    config = ReleaseConfig()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(f"['remote \"store\"']\n    url = {address}\n")
    with pytest.raises(FoundryError, match="keep credentials out") as refused:
        remote_url(tmp_path, config)
    assert CANARY not in str(refused.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ADDRESSES[0])
    monkeypatch.setenv("GME_DVC_REMOTE", "s3://bucket/x")
    with pytest.raises(FoundryError, match="AWS_ENDPOINT_URL: keep credentials out"):
        ensure_dvc_config(tmp_path, config)
    assert not (tmp_path / ".dvc" / "config.local").exists()


@pytest.mark.usefixtures("secret_variables")
@pytest.mark.hardening(
    "attacks", "A15", "Credentials in addresses and variables, looked for wherever something is shown or kept"
)
def test_a_tracker_that_does_not_answer_is_named_without_it(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GME_MLFLOW_URI", "http://127.0.0.1:9/gme")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", CANARY)
    monkeypatch.setenv("GME_TRACKER_WAIT", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    follower = start_following(facts.workspace)
    with pytest.raises(FoundryError) as refused:
        follower.flush()
    follower.close("FAILED")
    with pytest.raises(FoundryError) as unread:
        find_model(facts.workspace, "gme-tiny")
    assert CANARY not in f"{refused.value} {unread.value} {caplog.text}"
    assert files_that_hold(facts.workspace, CANARY) == []
