"""One finished release in miniature, and everything that may be wrong with a copy of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import DatasetCard, ModelCard
from release_miniature import load_facts
from released_miniature import Finished

from gme_cli.main import run
from gme_data.digests import canonical_json, sha256_bytes
from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.registry.registration import register
from gme_release.release.create import create_release
from gme_release.release.diff import diff_releases
from gme_release.release.publish import publish_release
from gme_release.release.record import read_record, write_record
from gme_release.release.signing import make_key, sign
from gme_release.release.verify import verify_release
from gme_release.settings import local_database


def complaint(folder: Path, public: Path | None = None) -> str:
    with pytest.raises(FoundryError) as caught:
        verify_release(folder, public)
    return str(caught.value)


def test_a_sound_release(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.release.folder
    found = verify_release(folder, finished.public)
    assert (found.id, found.trusted) == (finished.release.id, True)
    assert not verify_release(folder).trusted
    assert sha256_bytes((folder / "record.json").read_bytes()) == finished.release.id
    raw = json.loads((folder / "record.json").read_text())
    assert (folder / "record.json").read_text() == canonical_json(raw) + "\n"
    assert run(["release", "verify", str(folder), "--key", str(finished.public), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == finished.release.id
    assert finished.key.stat().st_mode & 0o077 == 0


def test_the_record_says_what_the_registry_knows(finished: Finished) -> None:
    record = finished.release.record
    assert record.seeds == {"corpus.seed": 1}
    assert [d.path for d in record.datasets] == ["data/atlas", "data/synthetic"]
    assert record.verdict["passed"] is True
    assert {task.name: task.value for task in record.tasks} == {"place-question-t2t": 0.6, "flag-i2i": 0.8}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=finished.checkout, capture_output=True, text=True, check=True
    )
    assert record.source.commit == commit.stdout.strip()


def test_every_flipped_byte_is_found(copy: Path) -> None:
    """The middle byte of each file in turn, the record, cards and signature included."""
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    assert len(files) > 10
    for path in files:
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(FoundryError):
                verify_release(copy)
        path.write_bytes(whole)
    verify_release(copy)


def test_files_that_are_missing_extra_or_links(copy: Path) -> None:
    for path in [path for path in sorted(copy.rglob("*")) if path.is_file()]:
        kept = path.read_bytes()
        path.unlink()
        assert path.relative_to(copy).as_posix().split("/")[-1] in complaint(copy)
        path.write_bytes(kept)
    for extra in ("note.txt", ".gitignore", "model/extra.py"):
        (copy / extra).write_text("x")
        assert f"{extra}: extra" in complaint(copy)
        (copy / extra).unlink()
    weights = copy / "model" / "config.json"
    outside = copy.parent / "outside.json"
    outside.write_bytes(weights.read_bytes())
    weights.unlink()
    weights.symlink_to(outside)
    assert "model/config.json: a link" in complaint(copy)


def test_a_record_edited_by_hand(copy: Path, finished: Finished) -> None:
    path = copy / "record.json"
    text = path.read_text()
    path.write_text(text.replace('"value":0.6', '"value":0.9'))
    assert "record.sha256 says" in complaint(copy)
    # Somebody who also writes the id and the cards anew still lacks the key ...
    record = read_record(copy)
    write_record(copy, record)
    assert "release.sig" in complaint(copy)
    # ... and who signs with a key of his own is found by the key that was to be expected, or by the card.
    other = copy.parent / "other.pem"
    make_key(other)
    sign(copy, other)
    assert "README.md: does not say what the record says" in complaint(copy)
    assert "release.sig" in complaint(copy, finished.public)
    path.write_text("[]")
    assert "record.json is damaged" in complaint(copy)
    path.write_text(text.replace('"tag":"v1"', '"tag":"v1","note":"x"'))
    assert "record.json is damaged: note" in complaint(copy)


def test_a_record_that_names_nothing_is_no_release(copy: Path, finished: Finished) -> None:
    """Signed and all: an empty record agrees with any folder that lacks the rest."""
    record = read_record(copy)
    for name in [entry.path for entry in record.files]:
        (copy / name).unlink()
    write_record(copy, record.model_copy(update={"files": (), "tasks": (), "datasets": ()}))
    sign(copy, finished.key)
    said = complaint(copy)
    for problem in ("does not name requirements.txt", "does not name scores.json", "no file of the model", "no tasks"):
        assert problem in said


def test_another_key(finished: Finished, tmp_path: Path) -> None:
    public = make_key(tmp_path / "other.pem")
    assert "release.sig" in complaint(finished.release.folder, public)
    assert "is missing" in complaint(finished.release.folder, tmp_path / "none.pub")
    with pytest.raises(FoundryError, match="never overwritten"):
        make_key(tmp_path / "other.pem")


def test_cards_and_bill_are_the_record(finished: Finished) -> None:
    folder, record = finished.release.folder, finished.release.record
    card = ModelCard.load(folder / "README.md")
    results = {one.dataset_name: (one.metric_type, one.metric_value) for one in card.data.eval_results or []}
    assert results == {task.name: (task.metric, task.value) for task in record.tasks}
    for task in record.tasks:
        assert f"| {task.name} | {task.task_type} | {task.metric} | {task.value:.3f} |" in card.text
    assert record.datasets[0].content in DatasetCard.load(folder / "DATASETS.md").text
    text = (folder / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": record.model}]
    assert {c["name"] for c in bill["components"]} == {"numpy", "uvicorn", "data/atlas", "data/synthetic"}


def test_publish(finished: Finished, tmp_path: Path, copy: Path) -> None:
    files = publish_release(finished.release.folder, tmp_path / "hub", finished.public)
    assert {"README.md", "config.json", "model-00001-of-00001.safetensors", "record.json"} <= set(files)
    assert ModelCard.load(tmp_path / "hub" / "README.md").data.eval_results
    with pytest.raises(FoundryError, match="not empty"):
        publish_release(finished.release.folder, tmp_path / "hub")
    (copy / "model" / "config.json").write_text("{}")
    with pytest.raises(FoundryError, match="content changed"):
        publish_release(copy, tmp_path / "hub2")
    assert not (tmp_path / "hub2").exists()


def test_diff(finished: Finished) -> None:
    before = finished.release.record
    assert diff_releases(before, before) == []
    task = before.tasks[0].model_copy(update={"value": 0.7})
    after = before.model_copy(
        update={"tag": "v2", "tasks": (task, *before.tasks[1:]), "config": {"corpus": {"seed": 2}}}
    )
    changes = {change.what: (change.before, change.after) for change in diff_releases(before, after)}
    assert changes["release"] == ("gme-tiny v1", "gme-tiny v2")
    assert changes["config/corpus.seed"] == ("1", "2")
    assert changes[f"score/{task.name}"] == (0.6, 0.7)
    assert changes["config/stage_2.lora.rank"] == ("8", None)


def _dirty(finished: Finished) -> None:
    (finished.checkout / "patch.py").write_text("x")


def _lost(finished: Finished) -> None:
    (finished.workspace / "data" / "atlas" / "README.md").rename(finished.workspace / "lost")


def _nothing(_finished: Finished) -> None: ...


@pytest.mark.parametrize(
    ("change", "tag", "options", "reason"),
    [
        (_dirty, "v2", {}, "differs from its commit .* patch.py"),
        (_lost, "v2", {}, r"not the dataset of run .*README\.md: missing"),
        (_nothing, "v1", {}, "never made over"),
        (_nothing, "first", {}, "no tag of a release"),
        (_nothing, "v2", {"version": "7"}, "no version 7"),
    ],
)
def test_what_is_refused(
    finished: Finished, change: Callable[[Finished], None], tag: str, options: dict[str, object], reason: str
) -> None:
    try:
        change(finished)
        with pytest.raises(FoundryError, match=reason):
            finished.make(tag, **options)
        assert [path.name for path in finished.release.folder.parent.iterdir()] == ["gme-tiny-v1"]
    finally:
        (finished.checkout / "patch.py").unlink(missing_ok=True)
        if (finished.workspace / "lost").exists():
            (finished.workspace / "lost").rename(finished.workspace / "data" / "atlas" / "README.md")


def test_a_rerun_by_other_code_is_what_is_released(finished: Finished) -> None:
    """Code changed, the model did not: the version still names its first run, and the release the one of this code."""

    def only(code: str) -> Callable[[Mapping[str, str]], None]:
        def check(steps: Mapping[str, str]) -> None:
            if set(steps.values()) != {code}:
                raise FoundryError("The run was made by other code")

        return check

    first = load_facts(finished.workspace)
    again = {
        name: replace(manifest, code="1" * 64, key=sha256_bytes(manifest.key.encode()))
        for name, manifest in first.manifests.items()
    }
    with pytest.raises(FoundryError, match="made by other code"):
        finished.make("v9", require_same_code=only("1" * 64))
    found = register(finished.workspace, ReleaseConfig(), replace(first, manifests=again))
    assert (found.version, found.created) == ("1", False)
    for tag, code, run_id in (("v8", "0" * 64, finished.release.record.runs["mlflow"]), ("v9", "1" * 64, found.run_id)):
        made = finished.make(tag, require_same_code=only(code))
        assert set(made.record.source.steps.values()) == {code}
        assert made.record.runs["mlflow"] == run_id
        shutil.rmtree(made.folder)


def test_no_git_and_no_champion(finished: Finished, tmp_path: Path, empty_database: Path) -> None:
    with pytest.raises(FoundryError, match="no git checkout"):
        create_release(finished.workspace, ReleaseConfig(), "v2", finished.key, checkout=tmp_path)
    local_database(tmp_path).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(tmp_path))
    with pytest.raises(FoundryError, match="no champion of gme-tiny"):
        create_release(tmp_path, ReleaseConfig(), "v1", finished.key, checkout=finished.checkout)
