"""Ranks that fail, hang or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_training.launch import run_ranks
from gme_training.stage_progress import ProgressSource

RANK = """
import os, sys, time, json, pathlib
from gme_data.process import die_with_parent
die_with_parent(int(os.environ["GME_PARENT_PID"]))
what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
rank = os.environ["RANK"]
(folder / f"pid{rank}").write_text(str(os.getpid()))
if what == "crash" and rank == "1":
    print("counting sheep", flush=True)
    raise ValueError("the fence is broken")
if what == "tell" and rank == "1":
    (folder / ".error-rank1.json").write_text(json.dumps({"message": "No hay.", "hint": "Buy some.", "exit_code": 2}))
    sys.exit(2)
if what != "fine":
    time.sleep(120)
"""


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def run(what: str) -> None:
        watch = ProgressSource("test", 1, tmp_path / "events.jsonl")
        run_ranks(["a_rank", what, str(tmp_path)], 2, device="cpu", scratch=tmp_path, log_dir=tmp_path, progress=watch)

    return run


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_ranks_end_well(ranks):
    ranks("fine")


def test_a_crash_stops_the_others_and_shows_the_last_words(ranks, tmp_path: Path):
    started = time.monotonic()
    with pytest.raises(FoundryError, match=r"(?s)Rank 1 ended with status 1.*counting sheep.*the fence is broken"):
        ranks("crash")
    assert time.monotonic() - started < 60
    assert not alive(int((tmp_path / "pid0").read_text()))


def test_an_error_for_the_user_comes_through_as_it_is(ranks):
    with pytest.raises(FoundryError, match=r"^No hay\.$") as caught:
        ranks("tell")
    assert caught.value.hint == "Buy some."


def test_ranks_die_with_a_parent_that_is_killed(ranks, tmp_path: Path):
    code = (
        "from pathlib import Path\nfrom gme_training.stage_progress import ProgressSource\n"
        "from gme_training.launch import run_ranks\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "run_ranks(['a_rank', 'sleep', str(folder)], 2, device='cpu', scratch=folder, log_dir=folder,"
        " progress=ProgressSource('test', 1, folder / 'events.jsonl'))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    files = [tmp_path / f"pid{rank}" for rank in range(2)]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.1)
    pids = [int(file.read_text()) for file in files]
    assert all(alive(pid) for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def test_progress_follows_the_events_of_this_run_only(ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    events = tmp_path / "events.jsonl"
    append_event(events, "start", step=0, steps=5)
    append_event(events, "step", phase="old", source="old", loss=1.0)
    ranks("fine")
    assert "old" not in capsys.readouterr().err
