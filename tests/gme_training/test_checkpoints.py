"""Damaged checkpoints, events and jobs: what is whole is gone on from, and what was passed over is told."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.events import append_event, append_line
from gme_training.checkpoint_files import MANIFEST, ResumePoint, read_manifest, write_manifest
from gme_training.checkpoints import POINTER, Checkpoints
from gme_training.config import TrainingConfig
from gme_training.curves import read_curve
from gme_training.data.example_index import INDEX_FILE
from gme_training.job import TrainingJob, read_job
from gme_training.launch import error_file, run_ranks
from gme_training.stage_progress import ProgressSource, StageProgress

OLDER, NEWER = ResumePoint(1, 3), ResumePoint(1, 6)


@pytest.fixture
def resume(tmp_path: Path) -> Path:
    """Two checkpoints of one rank, as they are on disk."""
    folder = tmp_path / "resume"
    for point in (OLDER, NEWER):
        home = folder / point.tag
        home.mkdir(parents=True)
        (home / "weights.pt").write_bytes(point.tag.encode() * 100)
        (home / "optimizer.pt").write_bytes(b"moments" * 50)
        write_manifest(home, point, 1, ["a", "b"])
    (folder / POINTER).write_text(NEWER.tag)
    return folder


def newest(resume: Path) -> tuple[ResumePoint | None, list[str]]:
    warnings: list[str] = []
    return Checkpoints(resume, keep=2, ranks=1).newest(warnings.append), warnings


def high_bit(data: bytes) -> bytes:
    return data[:20] + bytes([data[20] | 0x80]) + data[21:]


def another(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        high_bit,
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"\xff\xfe",
        lambda data: data[:-30],
        lambda _: b"[" * 100_000,
        another(b'"step": 6', b'"step": 5'),
        another(b'"step": 6', b'"step": 1e400'),
        another(b'"step": 6', b'"step": ' + b"9" * 5000),
        another(b'"phase": 1', b'"phase": 0'),
        another(b'"ranks": 1', b'"ranks": 2'),
        another(b'"ranks"', b'"rnaks"'),
        another(b'"a"', b'"c"'),
        another(b'"files"', b'"fales"'),
        another(b'["a", "b"]', b'["\\ud800"]'),
    ],
)
@pytest.mark.hardening("faults", "F22", "checkpoint damaged in any of its files")
def test_a_damaged_manifest_means_the_checkpoint_before_and_a_line_that_says_so(
    resume: Path, change: Callable[[bytes], bytes]
) -> None:
    assert newest(resume) == (NEWER, [])
    path = resume / NEWER.tag / MANIFEST
    path.write_bytes(change(path.read_bytes()))
    point, (warnings,) = newest(resume)
    assert point == OLDER
    assert warnings.startswith(f"checkpoint {NEWER.tag} can't be used: its manifest is damaged")


@pytest.mark.hardening("faults", "F22", "checkpoint damaged in any of its files")
def test_no_flipped_bit_of_a_checkpoint_is_believed(resume: Path) -> None:
    random.seed(3)
    for name in (MANIFEST, "weights.pt", "optimizer.pt"):
        path = resume / NEWER.tag / name
        content = path.read_bytes()
        for place in random.sample(range(len(content)), 60):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]
            )
            assert newest(resume)[0] == OLDER
        path.write_bytes(content)
    assert newest(resume) == (NEWER, [])


def test_a_file_that_the_manifest_does_not_name_or_that_is_none_is_not_loaded(resume: Path) -> None:
    (resume / NEWER.tag / "mp_rank_01_model_states.pt").write_bytes(b"planted")
    assert "does not name mp_rank_01" in newest(resume)[1][0]
    (resume / OLDER.tag / "weights.pt").unlink()
    (resume / OLDER.tag / "weights.pt").mkdir()
    with pytest.raises(FoundryError, match="None of the checkpoints"):
        newest(resume)


def test_a_checkpoint_that_was_passed_over_pushes_none_out(resume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (resume / NEWER.tag / "weights.pt").write_bytes(b"damaged")
    point = ResumePoint(1, 4)  # the run went on from the older one, and was asked to stop
    (resume / point.tag).mkdir()
    (resume / point.tag / "weights.pt").write_bytes(b"fresh")
    checkpoints = Checkpoints(resume, keep=1, ranks=1)
    monkeypatch.setattr("gme_training.checkpoints._trained", lambda _: ["a", "b"])
    checkpoints._complete(resume / point.tag, point, None)  # type: ignore[arg-type] # its names are given above
    assert newest(resume) == (point, [])
    assert [path.name for path in resume.glob("phase*")] == [point.tag]


@pytest.mark.hardening("faults", "F8", "power cut: files, names and the rename are on disk in that order")
def test_a_manifest_is_on_disk_after_the_files_it_names(resume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = __import__("os").fsync
    monkeypatch.setattr("os.fsync", lambda number: (order.append(_name_of(number)), real(number))[1])
    write_manifest(resume / OLDER.tag, OLDER, 1, [])
    last = order.index(next(name for name in order if MANIFEST in name and name.endswith(".part")))
    assert {"weights.pt", "optimizer.pt", OLDER.tag} <= set(order[:last])
    assert order[-1] == OLDER.tag  # the new name is on disk too
    assert read_manifest(resume / OLDER.tag).trained == ()


def _name_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def test_torn_events_are_passed_over_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = tmp_path / "events.jsonl"
    follower = StageProgress(ProgressSource("train", 3, events))
    append_event(events, "start", step=1)
    for line in ('{"kind": "step", "loss": NaN}', '{"kind": 7}', "[]", '"\\ud800"', '{"kind": "step", "loss'):
        append_line(events, line)
    append_event(events, "warning", text="checkpoint x can't be used")
    append_event(events, "step", phase="p", source="s", loss=1.5)
    follower.close()
    shown = capsys.readouterr().err
    assert "2/3 steps" in shown
    assert "checkpoint x can't be used" in shown
    assert "5 damaged line(s)" in shown


def test_a_curve_leaves_out_steps_whose_lines_are_damaged(tmp_path: Path) -> None:
    words = dict.fromkeys(("phase", "source", "batch"), "x")
    names = ("loss", "accuracy", "similarity", "negative_similarity", "temperature", "gradient_norm")
    fields = {**words, **dict.fromkeys((*names, "text_rate", "vision_rate", "computed_to_real"), 1.0)}
    for step in range(4):
        append_event(tmp_path / "h", "step", step=step, **fields)
    lines = (tmp_path / "h").read_bytes().splitlines()
    lines[1] = lines[1].replace(b'"loss"', b'"lost"')
    lines[2] = high_bit(lines[2])
    (tmp_path / "h").write_bytes(b"\n".join(lines))
    assert [entry["step"] for entry in read_curve(tmp_path / "h")] == [0, 3]


def test_a_job_comes_back_and_a_damaged_one_names_its_file(
    small_config: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    job = TrainingJob(small_config(), (tmp_path / "e",), (tmp_path / "i",), None, tmp_path, tmp_path)
    path = tmp_path / ".job.json"
    job.write(path)
    assert read_job(path) == job
    content = path.read_bytes()
    for damaged in (b"", b"{}", b"[1]", content[:-5], content.replace(b'"staging"', b'"stagings"'), high_bit(content)):
        path.write_bytes(damaged)
        with pytest.raises(FoundryError, match=r"\.job\.json: "):
            read_job(path)


@pytest.mark.parametrize("left", ["{", "[]", '{"message": 7, "hint": null, "exit_code": 2}', '{"exit_code": 0}'])
def test_what_a_rank_left_and_is_damaged_gives_way_to_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "failing.py").write_text(
        f"import pathlib, sys\npathlib.Path({str(error_file(tmp_path, 0))!r}).write_text({left!r})\n"
        "print('the last words')\nsys.exit(1)\n"
    )
    watch = ProgressSource("test", 1, tmp_path / "events.jsonl")
    with pytest.raises(FoundryError, match=r"(?s)Rank 0 ended with status 1.*the last words"):
        run_ranks(["failing"], 1, device="cpu", scratch=tmp_path, log_dir=tmp_path, progress=watch)


@pytest.mark.parametrize("damaged", [b"[]", b"{}", b"\xff", b'{"version": 1, "shards": [[1]], "strata": []}'])
def test_a_damaged_index_is_built_again(world: dict[str, Path], tmp_path: Path, damaged: bytes) -> None:
    from gme_data.images import ImageStore
    from gme_training.data.example_index import ensure_index, read_index_manifest

    images = ImageStore([world["corpus"] / "images"])
    ensure_index([world["synthetic"] / "train"], tmp_path / "index", images)
    content = json.loads((tmp_path / "index" / INDEX_FILE).read_bytes())
    (tmp_path / "index" / INDEX_FILE).write_bytes(damaged)
    ensure_index([world["synthetic"] / "train"], tmp_path / "index", images)
    assert json.loads((tmp_path / "index" / INDEX_FILE).read_bytes()) == content
    assert read_index_manifest(tmp_path / "index").strata
