"""Fetching public sets by the hub's real client from a hub on this machine; planning, licences and the commands."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from public_upstream import N, picture, write_subset
from support.hub import COMMIT, Hub, serve_hub

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.fetch import fetch_sets
from gme_synthesis.public.store import LOCK, UNPACKED, changed_files, missing_parts, read_lock, repository_folder
from gme_synthesis.public.unpack import unpack_pictures


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    for name in ("msmarco", "squad", "fever", "m-beir", "mscoco"):
        write_subset(tmp_path / "hub", name)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serve_hub(tmp_path / "hub", monkeypatch) as served:
        yield served


def choices(*names: str) -> list[SetChoice]:
    return [SetChoice(name=name) for name in names]


def test_named_files_alone_come_and_the_commit_is_pinned(hub: type[Hub], tmp_path: Path) -> None:
    data = tmp_path / "data"
    came = fetch_sets(choices("msmarco", "fever"), data)
    assert came == [
        "Tevatron/msmarco-passage/train.jsonl.gz",
        "BeIR/fever-qrels/train.tsv",
        "BeIR/fever/queries.jsonl.gz",
        "BeIR/fever/corpus.jsonl.gz",
    ]
    assert not list(data.rglob("*.py")), "no loading script comes along"
    lock = json.loads((data / LOCK).read_text())
    assert {pinned["revision"] for pinned in lock.values()} == {COMMIT}
    assert [missing_parts(choice, data, 0) for choice in choices("msmarco", "fever")] == [(), ()]
    asked = len(hub.asked)
    assert fetch_sets(choices("msmarco", "fever"), data) == []
    assert len(hub.asked) == asked, "what is there is not asked for"
    (repository_folder(data, "BeIR/fever-qrels") / "train.tsv").unlink()
    assert fetch_sets(choices("fever"), data) == ["BeIR/fever-qrels/train.tsv"]


def test_a_hub_that_lists_files_outside_is_not_followed(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pattern,) = [file.path for file in SetChoice(name="mscoco").upstream.files if "*" in file.path][:1]
    monkeypatch.setattr(hub, "extra", (pattern.replace("*", "/../../../../outside", 1).replace("*", "x"),))
    fetch_sets(choices("mscoco"), tmp_path / "data")
    assert not any("outside" in path for _, path, _ in hub.asked)
    assert "outside" not in (tmp_path / "data" / LOCK).read_text()


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)  # of ten megabytes a cut would lose all
    data = tmp_path / "data"
    large = tmp_path / "hub" / "TIGER-Lab" / "M-BEIR" / "query" / "union_train" / "mbeir_union_up_train.jsonl"
    large.write_bytes(large.read_bytes() * 2000)
    fetch_sets(choices("squad"), data)
    hub.cut = 2**20
    with pytest.raises(FoundryError, match="TIGER-Lab/M-BEIR can't be fetched") as failed:
        fetch_sets(choices("squad", "m-beir"), data)
    assert "goes on from what is there" in (failed.value.hint or "")
    assert missing_parts(SetChoice(name="m-beir"), data, 0)
    before = read_lock(data)
    hub.cut, hub.asked = None, []
    came = fetch_sets(choices("squad", "m-beir"), data)
    assert not any("squad" in path for path in came)
    bodies = [(path, asked) for method, path, asked in hub.asked if method == "GET" and "union_up_train" in path]
    assert bodies
    assert all(asked == f"bytes={2**20}-" for _, asked in bodies), "from the byte it stopped at"
    assert read_lock(data)["TIGER-Lab/M-BEIR"].revision == before["TIGER-Lab/M-BEIR"].revision
    assert changed_files(SetChoice(name="m-beir"), data) == []
    assert (
        repository_folder(data, "TIGER-Lab/M-BEIR") / "query/union_train/mbeir_union_up_train.jsonl"
    ).read_bytes() == (large.read_bytes())


def test_pictures_are_unpacked_once_and_nothing_else_is(hub: type[Hub], tmp_path: Path) -> None:
    data = tmp_path / "data"
    fetch_sets(choices("m-beir"), data)
    folder = repository_folder(data, "TIGER-Lab/M-BEIR") / UNPACKED
    assert len(list(folder.rglob("*.png"))) == N
    assert not list(folder.rglob("*.sh"))
    assert (folder / "mbeir_images/coco/1.png").read_bytes() == picture(501)
    assert unpack_pictures(SetChoice(name="m-beir"), data) == 0
    (folder / "mbeir_images/coco/1.png").unlink()
    assert missing_parts(SetChoice(name="m-beir"), data, 0) == ()
    (folder / ".unpacked").unlink()  # as a kill leaves it
    (missing,) = missing_parts(SetChoice(name="m-beir"), data, 0)
    assert "not unpacked to their end" in missing
    assert unpack_pictures(SetChoice(name="m-beir"), data) == 1


def test_an_archive_that_climbs_out_is_refused(hub: type[Hub], tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "TIGER-Lab" / "M-BEIR"
    for part in repository.glob("*.part-*"):
        part.unlink()
    (tmp_path / "evil.png").write_bytes(picture(1))
    with tarfile.open(repository / "mbeir_images.tar.gz.part-00", "w:gz") as archive:
        archive.add(tmp_path / "evil.png", arcname="../../climbed.png")
    with pytest.raises(FoundryError, match=r"climbed\.png' of an archive would be written outside"):
        fetch_sets(choices("m-beir"), tmp_path / "data")
    assert not list(tmp_path.rglob("climbed.png"))


def test_other_bytes_than_the_hub_states_are_not_taken(hub: type[Hub], tmp_path: Path) -> None:
    data, squad = tmp_path / "data", SetChoice(name="squad")
    fetch_sets([squad], data)
    path = repository_folder(data, "rajpurkar/squad") / "plain_text" / "train-00000-of-00001.parquet"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"!")
    assert changed_files(squad, data) == [f"{path} has changed since it was fetched"]
    path.unlink()
    (tmp_path / "hub" / "rajpurkar" / "squad" / "plain_text" / path.name).write_bytes(raw[:-1] + b"!")
    with pytest.raises(FoundryError, match=r"rajpurkar/squad/plain_text/.* sha256 \w{12}, expected"):
        fetch_sets([squad], data)
    assert not path.exists()


def test_what_the_hub_has_not_and_a_disk_without_room(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FoundryError, match="sentence-transformers/natural-questions can't be fetched"):
        fetch_sets(choices("nq"), tmp_path / "data")
    renamed = tmp_path / "hub" / "rajpurkar" / "squad" / "plain_text"
    renamed.rename(renamed.with_name("other"))
    with pytest.raises(
        FoundryError, match=r"squad has no file plain_text/train-\*\.parquet .* Its first files: other/"
    ):
        fetch_sets(choices("squad"), tmp_path / "data")
    monkeypatch.setattr("gme_synthesis.public.fetch._RESERVED_BYTES", 2**60)
    with pytest.raises(FoundryError, match="GB are free"):
        fetch_sets(choices("msmarco"), tmp_path / "data")


def test_the_commands(hub: type[Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = [{"source": "squad"}]
    raw = {
        "name": "tried",
        "corpus": {"kind": "public", "sets": [{"name": "squad"}], "data": "public"},
        "stage_1": {"phases": [{"name": "mix", "steps": 10, "mixture": mixture}]},
    }
    file = tmp_path / "tried.yaml"
    file.write_text(yaml.safe_dump(raw))
    base = ["--config", str(file), "--workspace", str(tmp_path)]

    assert run(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert "unverified" in listed
    assert any("triviaqa" in line and "licence" in line for line in listed.splitlines())
    assert run(["data", "list", "--json"]) == 0
    assert {"sources", "unverified", "instruction"} <= set(json.loads(capsys.readouterr().out)[0])

    for command in (["data", "fetch"], ["pipeline"], ["corpus", "import"]):
        assert run([*command, *base]) == 2
        told = capsys.readouterr().err
        assert "not accepted: squad (cc-by-sa-4.0)" in told
        assert "accept_licences: [cc-by-sa-4.0]" in told
    assert run(["pipeline", "--dry-run", *base]) == 0
    assert "(!) not accepted: cc-by-sa-4.0 of squad" in capsys.readouterr().out
    assert not (tmp_path / "public").exists(), "refused before any work"
    raw["corpus"]["accept_licences"] = ["cc-by-sa-4.0"]  # type: ignore[index]
    file.write_text(yaml.safe_dump(raw))

    assert run(["pipeline", *base]) == 2
    told = capsys.readouterr().err
    assert "1 of 1 public sets are not fetched: squad" in told
    assert "gme data fetch squad" in told
    assert run(["data", "plan", "--config", str(file), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["bytes_to_fetch"], planned["licences_to_accept"]) == (16278203, {})
    assert planned["sets"][0]["revision"] is None
    assert run(["pipeline", "--dry-run", *base]) == 0
    shown = capsys.readouterr().out
    for word in ("not fetched", "to fetch: 0.0 GB", "stage_1: 10 steps, 640 pairs", "▸ corpus"):
        assert word in shown

    assert run(["data", "fetch", *base, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fetched"] == ["rajpurkar/squad/plain_text/train-00000-of-00001.parquet"]
    assert run(["data", "verify", *base]) == 0
    assert "✓ squad" in capsys.readouterr().out
    assert run(["corpus", "import", *base]) == 0
    assert "1 sets, 10 examples" in capsys.readouterr().out
    path = repository_folder(tmp_path / "public", "rajpurkar/squad") / "plain_text" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert run(["data", "verify", *base]) == 2
    assert run(["data", "fetch", "msmacro", "--workspace", str(tmp_path)]) == 2
    assert "Did you mean 'msmarco'" in capsys.readouterr().err
    assert run(["data", "fetch", "msmarco", "--workspace", str(tmp_path), "--accept-licence", "msr-la-nc"]) == 0
    assert (tmp_path / "downloads" / "public" / LOCK).is_file()


@pytest.mark.parametrize("name", ["gme-2b", "gme-7b"])
def test_a_dry_run_of_the_recipes_says_what_they_would_take(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--config", str(Path(__file__).parents[3] / "configs" / f"{name}.yaml"), "--workspace", str(tmp_path)]
    assert run(["pipeline", "--dry-run", *file]) == 2, "the passages of Wikipedia are somebody's to bring"
    shown = capsys.readouterr().out
    paper = ["msmarco", "nq", "hotpotqa", "triviaqa", "squad", "fever", "allnli"]
    paper += ["imagenet", "laion", "mscoco", "docmatix", "m-beir"]
    assert [line.split()[0] for line in shown.splitlines()[1:13]] == paper
    for word in (
        "not fetched",
        "to fetch: 17",
        "(!) not accepted: msr-la-nc of msmarco",
        "4,900,000 examples, text 1, image 1, cross 2, fused 0.9",
        "stage_2: ",
        "pairs, Qwen/Qwen2-VL-",
        "evaluated on: umrb",
        "▸ evaluate",
    ):
        assert word in shown
    assert run(["pipeline", *file]) == 2
    assert "not accepted: msmarco (msr-la-nc), nq" in capsys.readouterr().err
    assert run(["data", "plan", *file[:2], "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert 170e9 < planned["bytes_to_fetch"] < 180e9
