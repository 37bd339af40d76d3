"""An outbox that was torn, damaged or on a full disk: what can be read is told, what is lost is said and refilled."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from followed_run import DESCRIPTION, history, log_steps, runs_of, start_following
from fuzz.harness import try_damaged

from gme_data.errors import FoundryError
from gme_release.run_facts import RunFacts
from gme_release.tracking import outbox as outbox_module
from gme_release.tracking.client import open_client
from gme_release.tracking.follower import HOME, Follower, flush_outboxes
from gme_release.tracking.messages import MetricPoints, RunEnd, RunStart, RunTags, decode, encode
from gme_release.tracking.outbox import LINES, Outbox, OutboxHeader, outboxes
from gme_release.tracking.recovery import recover_messages
from gme_release.tracking.tags import FOLLOWED, LOST

MESSAGES = (
    RunStart(run="r", name="tiny", tags={"a": "b"}, params={}, time=1000, key="k", experiment="gme-tiny"),
    RunStart(run="r/train-1-aaaaaaaa", name="4 train-1", tags={}, params={"rank": "8"}, time=1000, start=0),
    MetricPoints(run="r/train-1-aaaaaaaa", points=(("loss/all", 9.0, 1000, 0),), start=0, offset=10, step=0),
    RunTags(run="r", tags={"note": "größer"}),
    RunEnd(run="r/train-1-aaaaaaaa", status="FINISHED", time=2000, offset=10),
)


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    box = Outbox(tmp_path / "home" / "r")
    box.write_header(OutboxHeader(key="k", experiment="gme-tiny"))
    for message in MESSAGES:
        box.append(message)
    return box


def test_messages_come_back_as_they_were(box: Outbox) -> None:
    assert tuple(box.messages()) == MESSAGES
    assert box.damaged_count == 0
    for message in MESSAGES:
        assert decode(encode(message).encode(), "x") == message


@pytest.mark.hardening("faults", "F21", "outbox torn anywhere, every byte flipped")
def test_a_line_torn_anywhere_is_passed_over_and_counted(box: Outbox) -> None:
    lines = box.folder / "outbox.jsonl"
    whole = lines.read_bytes()
    with lines.open("ab") as handle:
        handle.write(b'{"check":"00000000","kind": "met')  # a disk that was full for a moment
    assert (len(list(box.messages())), box.damaged_count) == (5, 1)
    again = Outbox(box.folder)
    again.append(RunTags(run="r", tags={"after": "it"}))
    assert [message.kind for message in again.messages()][-2:] == ["end", "tags"]
    first = again.pending(1)
    again.mark_sent(first.end)
    rest = again.pending(99)
    assert (len(rest.messages), rest.lost, again.pending_count) == (5, 1, 6)
    again.mark_sent(rest.end)
    assert again.pending(99).empty
    for damaged in (b"99999", b'{"offset":7}', b"\xff", b'{"offset":-1}', b'{"offset":99999999}', b""):
        (box.folder / "sent").write_bytes(damaged)
        assert len(again.pending(99).messages) == 6, "from the start, since told twice it is there once"
    assert whole in lines.read_bytes()


@pytest.mark.hardening("faults", "F21", "outbox torn anywhere, every byte flipped")
def test_every_byte_flipped_raises_nothing_and_loses_no_other_message(box: Outbox) -> None:
    """A third of the bytes and each line's end in turn, one bit of it; some cut away or made zero; then the header."""
    lines = box.folder / "outbox.jsonl"
    whole = lines.read_bytes()
    kept: Counter[int] = Counter()
    ends = (place for place, byte in enumerate(whole) if byte == ord("\n"))
    for place in {*range(0, len(whole), 3), *ends}:
        bit = 1 << (place % 8)
        lines.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        found = list(box.messages())
        kept[len(found)] += 1
        assert all(message in MESSAGES for message in found), "no value silently changed"
        assert len(found) >= 3, "a line's end that is gone costs its neighbour, nothing else more than itself"
        assert box.damaged_count >= 1
        recover_messages(found, box.folder)
    assert kept[3] <= len(MESSAGES) < kept[4]
    for place in range(0, len(whole), 7):
        for damaged in (whole[:place], whole[:place] + whole[place + 5 :], whole[:place] + b"\0" * 40 + whole[place:]):
            lines.write_bytes(damaged)
            assert all(message in MESSAGES for message in box.messages())
            assert all(message in MESSAGES for message in box.pending(99).messages)
    lines.write_bytes(whole)
    header = box.folder / "run.json"
    text = header.read_bytes()
    for place in range(len(text)):
        header.write_bytes(text[:place] + bytes([text[place] ^ (1 << place % 8)]) + text[place + 1 :])
        assert box.header == OutboxHeader(key="k", experiment="gme-tiny")
    header.write_bytes(text)
    damage_line(box.folder, '"key":"k"')
    assert box.header == OutboxHeader(key="k", experiment="gme-tiny")


def test_what_is_no_file_is_told_and_left_alone(box: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    lines = box.folder / "outbox.jsonl"
    lines.unlink()
    os.mkfifo(lines)
    with pytest.raises(FoundryError, match="no regular file"):
        list(box.messages())
    assert outboxes(box.folder.parent) == []
    assert "can't be read" in caplog.text


def test_lines_of_an_older_release_are_read(box: Outbox) -> None:
    with (box.folder / "outbox.jsonl").open("a") as lines:
        lines.write('{"kind": "end", "run": "r", "status": "FINISHED", "time": 3}\n{"kind": "end", "run": "r"}\n')
    assert list(box.messages())[-1] == RunEnd(run="r", status="FINISHED", time=3)
    assert box.damaged_count == 1


def damage_line(folder: Path, holds: str) -> None:
    path = folder / "outbox.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    hit = [number for number, line in enumerate(lines) if holds.encode() in line]
    assert hit, f"no line holds {holds}"
    lines[hit[0]] = lines[hit[0]].replace(b"a", b"\xe1", 1)
    path.write_bytes(b"".join(lines))


def unsent(facts: RunFacts, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outbox of a run that was killed before it could tell anything."""
    with monkeypatch.context() as patch:
        patch.setattr("gme_release.tracking.follower.Sender.send", lambda _self: True)
        follower = start_following(facts.workspace)
        log_steps(facts.workspace, range(3))
        with follower._lock:
            follower._read_events(follower._events["train-1"])
        log_steps(facts.workspace, range(3, 6))
        follower.end_step("train-1", "FINISHED", counts={"examples": 7})
        follower._stop_threads()
    [folder] = (facts.workspace / HOME).iterdir()
    return folder


@pytest.mark.parametrize(
    "holds", ['"key":"kkkk', '"name":"4 train-1"', '"step":2', '"step":5', "counts/examples", '"kind":"end"']
)
@pytest.mark.hardening("faults", "F21", "outbox torn anywhere, every byte flipped")
def test_each_lost_message_is_made_up_for(
    facts: RunFacts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], holds: str
) -> None:
    workspace = facts.workspace
    log_steps(workspace, range(2))  # of another run, long ago
    folder = unsent(facts, monkeypatch)
    log_steps(workspace, range(4))  # of another run, later
    if holds == '"kind":"end"':
        shutil.copy(workspace / "runs/steps/train-1/events.jsonl", workspace / "events")
    damage_line(folder, holds)
    flush_outboxes(workspace)
    said = capsys.readouterr().err
    assert said.count("1 message(s) for the tracker are damaged") == 1
    flush_outboxes(workspace)
    assert not capsys.readouterr().err, "said once"
    runs = runs_of(workspace)
    step = next(name for name in runs if "train-1" in name)
    parent = next(run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags)
    assert len(runs) == 2
    assert runs[step].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags[LOST] == "1"
    expected = [(number, 9.0 - number) for number in range(6)]
    assert history(workspace, step, "loss/all") == expected
    assert (holds == "counts/examples") or runs[step].data.metrics["counts/examples"] == 7


def test_a_damaged_end_is_closed_by_the_next_run(facts: RunFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unsent(facts, monkeypatch)
    damage_line(folder, '"kind":"end"')
    other = Follower(facts.workspace, replace(DESCRIPTION, key="o" * 64, name="other"))
    other.begin_step("corpus", "1 corpus", "c" * 64, {})
    other.end_step("corpus", "FINISHED")
    other.flush()
    other.close("FAILED")
    assert "RUNNING" not in {run.info.status for run in runs_of(facts.workspace).values()}


@pytest.mark.hardening("fuzz", "Z7", "releases and outboxes")
def test_no_mutated_outbox_raises_or_changes_a_message(box: Outbox) -> None:
    def read(data: bytes) -> None:
        (box.folder / LINES).write_bytes(data)
        messages = list(box.messages())
        assert all(message in MESSAGES for message in messages)
        recover_messages(messages, box.folder)

    assert try_damaged((box.folder / LINES).read_bytes(), read, fields=True) == 0


@pytest.mark.hardening("fuzz", "Z7", "releases and outboxes")
def test_mutated_outboxes_of_dead_runs_are_told_by_the_next(facts: RunFacts) -> None:
    """What can be read of each reaches the tracker; nothing raises, and nothing is left running."""
    random_, home, left = random.Random(21), facts.workspace / HOME, {}
    for number in range(12):
        box = Outbox(home / f"r{number}")
        box.write_header(OutboxHeader(key="k", experiment="gme-tiny"))
        for message in MESSAGES:
            box.append(message.model_copy(update={"run": message.run.replace("r", f"r{number}", 1)}))
        lines = box.folder / "outbox.jsonl"
        data = bytearray(lines.read_bytes())
        for _ in range(random_.randrange(1, 4)):
            place = random_.randrange(len(data))
            data[place : place + random_.randrange(3)] = bytes(
                random_.randrange(256) for _ in range(random_.randrange(3))
            )
        lines.write_bytes(data)
        left[f"r{number}"] = list(box.messages())
    other = Follower(facts.workspace, replace(DESCRIPTION, key="o" * 64, name="other"))
    other.begin_step("corpus", "1 corpus", "c" * 64, {})
    other.end_step("corpus", "FINISHED")
    other.flush()
    other.close("FAILED")
    client = open_client(facts.workspace)
    [experiment] = client.search_experiments(filter_string="name = 'gme-tiny'")
    told = {run.data.tags[FOLLOWED]: run for run in client.search_runs([experiment.experiment_id])}
    for messages in left.values():
        for message in messages:
            run = told[message.run]
            match message:
                case MetricPoints():
                    assert run.data.metrics["loss/all"] == 9.0
                case RunTags():
                    assert run.data.tags["note"] == "größer"
                case RunStart():
                    assert message.params.items() <= run.data.params.items()
    assert "RUNNING" not in {run.info.status for run in told.values()}
    assert sum(LOST in run.data.tags for run in told.values()) == sum(
        len(kept) < len(MESSAGES) for kept in left.values()
    )


@pytest.mark.hardening("faults", "F20", "disk full for a moment at the tracker's outbox")
def test_a_full_disk_for_a_moment_loses_nothing(facts: RunFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = facts.workspace
    append, full = outbox_module.append_line, [True]

    def writes(path: Path, line: str) -> None:
        if full[0]:
            with path.open("ab") as handle:
                handle.write(line.encode()[: len(line) // 2])
            raise OSError(28, "No space left on device", str(path))
        append(path, line)

    monkeypatch.setattr(outbox_module, "append_line", writes)
    follower = start_following(workspace)
    log_steps(workspace, range(4))
    follower.end_step("train-1", "FINISHED", counts={"examples": 7})
    with pytest.raises(FoundryError, match="the disk takes no more"):
        follower.flush()
    full[0] = False
    follower.flush()
    follower.close("FAILED")
    runs = runs_of(workspace)
    assert runs["4 train-1"].info.status == "FINISHED"
    assert LOST not in runs["tiny 2026-01-01"].data.tags
    assert [step for step, _ in history(workspace, "4 train-1", "loss/all")] == [0, 1, 2, 3]


def test_events_that_are_damaged_cost_themselves(facts: RunFacts) -> None:
    workspace = facts.workspace
    follower = start_following(workspace)
    log_steps(workspace, range(2))
    events = workspace / "runs/steps/train-1/events.jsonl"
    with events.open("ab") as lines:
        for line in (b"[1]", b'{"kind": "step"}', b'{"time": 1, "kind": "step", "step": "x"}', b"\xff\xfe", b"{" * 99):
            lines.write(line + b"\n")
        lines.write(b'{"time": 1.5, "kind": "step", "step": 2, "loss": NaN}\n')
        lines.write(b'{"time": 1.5, "kind": "step", "step": 2, "loss": 7.0, "source": "a;b"}\n{"kind": "st')
    log_steps(workspace, range(3, 5))
    follower.end_step("train-1", "FINISHED")
    follower.flush()
    follower.close("FAILED")
    assert sorted(step for step, _ in history(workspace, "4 train-1", "loss/all")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("left", [lambda folder: None, shutil.rmtree])
@pytest.mark.hardening("faults", "F15", "MLflow runs of a killed process")
def test_runs_of_a_killed_process_are_closed_by_the_next(
    facts: RunFacts, left: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a step whose output was published: its rerun never begins that step again. Its outbox may be gone."""
    workspace = facts.workspace
    follower = start_following(workspace)
    assert all(sender.send() for sender in follower._senders)
    follower._stop_threads()
    left(workspace / HOME)
    assert {run.info.status for run in runs_of(workspace).values()} == {"RUNNING"}
    again = Follower(workspace, DESCRIPTION)
    again.begin_step("report", "9 report", "d" * 64, {})
    again.end_step("report", "FINISHED")
    again.flush()
    statuses = {name: run.info.status for name, run in runs_of(workspace).items()}
    assert statuses["4 train-1"] == "KILLED"
    assert statuses["9 report"] == "FINISHED"
    again.close("FAILED")
    assert "RUNNING" not in {run.info.status for run in runs_of(workspace).values()}
