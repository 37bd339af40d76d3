"""Fetching by the real client of the hub from a hub on this machine, and what verification finds afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.hf_api
import mteb
import pytest
from support.hub import COMMIT, Hub, serve_hub
from upstream import write_task

from gme_cli.main import run as gme
from gme_data.errors import FoundryError
from umrb.data.fetch import by_hand, fetch, repositories, verify
from umrb.data.fetch_lock import LOCK
from umrb.data.loading import load_suite_task
from umrb.data.mteb_data import local_copy
from umrb.data.task_folders import disk_datasets
from umrb.registry import choose


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    repository = write_task(tmp_path / "upstream", "SciFact")
    (tmp_path / "hub" / "mteb").mkdir(parents=True)
    repository.rename(tmp_path / "hub" / "mteb" / "scifact")
    with serve_hub(tmp_path / "hub", monkeypatch) as served:
        yield served


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """The repository that the hub serves."""
    return tmp_path / "hub" / "mteb" / "scifact"


def test_fetch_takes_the_pinned_revision_and_records_it(hub: type[Hub], upstream: Path, tmp_path: Path) -> None:
    scifact = choose("umrb", ["SciFact"])
    (fetched,) = fetch(scifact, tmp_path / "data")
    assert (fetched.name, fetched.revision, fetched.licence) == ("mteb/scifact", COMMIT, "cc-by-nc-4.0")
    record = json.loads((tmp_path / "data" / LOCK).read_text())["mteb/scifact"]
    assert record["revision"] == COMMIT
    assert {entry["path"] for entry in record["files"]} == {
        path.relative_to(upstream).as_posix() for path in upstream.rglob("*") if path.is_file()
    }
    requests = len(hub.asked)
    assert fetch(scifact, tmp_path / "data") == []
    assert len(hub.asked) == requests

    (finding,) = verify(scifact, tmp_path / "data")
    assert finding.problems == ("8 query rows, 300 expected", "8 document rows, 5,183 expected")
    path = local_copy(tmp_path / "data", "mteb/scifact") / "README.md"
    path.write_text(path.read_text() + "\n")
    (finding,) = verify(scifact, tmp_path / "data")
    assert any("README.md has changed since it was fetched" in problem for problem in finding.problems)

    # The readers of `datasets` take every file of a split.
    (path.parent / "corpus").mkdir(exist_ok=True)
    (path.parent / "corpus" / "planted.jsonl").write_text("{}")
    with pytest.raises(FoundryError, match=r"did not come with mteb/scifact: corpus/planted\.jsonl"):
        load_suite_task(scifact[0], "SciFact", tmp_path / "data")


def test_a_repository_that_is_not_there(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="mteb/nq can't be fetched") as caught:
        fetch(choose("umrb", ["NQ"]), tmp_path / "data")
    assert "run the same command again" in (caught.value.hint or "")


def test_every_dataset_of_umrb_has_a_pinned_repository() -> None:
    all_repositories = repositories(choose("umrb"))
    assert len({repository.name for repository in all_repositories}) == len(all_repositories) == 46 + 12
    for repository in all_repositories:
        assert len(repository.revision or "") == 40
        assert repository.licence == str(mteb.get_task(repository.tasks[0]).metadata.license)


def test_what_can_not_be_fetched_says_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dci = choose("retrieval-page", ["DCI-T2I", "Flickr30K-T2I"])
    assert "SA-1B" in by_hand(dci)["DCI-T2I"]
    assert [repository.name for repository in repositories(dci)] == ["mteb/flickr30kt2i"]
    assert gme(["umrb", "fetch", "--suite", "retrieval-page", "--dry-run", "--data", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "mteb/flickr30kt2i" in printed
    assert "DCI-I2T is not fetched. Its photos are part of SA-1B" in printed


def test_files_that_were_lost_are_fetched_again(hub: type[Hub], upstream: Path, tmp_path: Path) -> None:
    scifact = choose("umrb", ["SciFact"])
    fetch(scifact, tmp_path / "data")
    path = local_copy(tmp_path / "data", "mteb/scifact") / "README.md"
    path.unlink()
    assert len(fetch(scifact, tmp_path / "data")) == 1
    assert path.read_bytes() == (upstream / "README.md").read_bytes()


def test_a_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FoundryError, match="TIGER-Lab/MMEB-eval can't be fetched at its newest"):
        fetch(choose("mmeb", ["GQA"]), tmp_path)


def test_tasks_on_disk_and_what_was_put_there_by_hand_need_no_record(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "tasks" / "test"
    for finding in verify(disk_datasets(folder), folder):
        assert finding.checked
        assert finding.problems == ()
    (tmp_path / "densely_captioned_images").mkdir()
    (finding,) = verify(choose("retrieval-page", ["DCI-T2I"]), tmp_path)
    assert len(finding.problems) == 1
    assert "splits.json" in finding.problems[0]


def test_verify_of_nothing(tmp_path: Path) -> None:
    (finding,) = verify(choose("umrb", ["NQ"]), tmp_path)
    assert not finding.checked
    assert "is not there" in finding.problems[0]
