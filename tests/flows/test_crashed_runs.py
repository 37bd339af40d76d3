"""Which runs count as dead: told by the process where it can be asked, else by time."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from support.week import START, GivenClock

from flows.crashed_runs import CrashedRunsRequest, mark_crashed_runs, reason_if_left_open
from flows.flow_start import PROCESS_LABEL, process_label

MACHINE, PID, BEGAN = process_label().rsplit(":", 2)


class Server:
    """Keeps flow runs as Prefect's client shows them."""

    def __init__(self, *runs: FlowRun) -> None:
        self.runs = runs
        self.messages: list[str | None] = []

    def read_flow_runs(self, *, limit: int, offset: int, **_: object) -> list[FlowRun]:
        return list(self.runs[offset : offset + limit])

    def read_task_runs(self, **_: object) -> list[object]:
        return []  # those of a real server are closed in test_lost_server.py

    def set_flow_run_state(self, _: object, state: State, *, force: bool) -> None:
        assert force
        assert state.is_crashed()
        self.messages.append(state.message)


@pytest.mark.parametrize(
    ("state", "hours", "process", "reason"),
    [
        (StateType.RUNNING, 0.1, f"{MACHINE}:{PID}:{int(BEGAN) - 60}", "its process is gone"),
        (StateType.RUNNING, 1000, f"{MACHINE}:{PID}:{BEGAN}", None),
        (StateType.RUNNING, 47, f"elsewhere:{PID}:{BEGAN}", None),
        (StateType.RUNNING, 49, f"elsewhere:{PID}:{BEGAN}", "it is running for too long"),
        (StateType.RUNNING, 49, None, "it is running for too long"),
        (StateType.PENDING, 0.4, None, None),
        (StateType.PENDING, 0.6, None, "no worker began it"),
    ],
    # The processes of xdist must agree on the names, which is why they do not hold a process id.
    ids=["dead", "alive", "elsewhere", "elsewhere-for-long", "unsigned-for-long", "pending", "stuck"],
)
def test_what_is_closed(state: StateType, hours: float, process: str | None, reason: str | None) -> None:
    found = State(type=state, timestamp=START - timedelta(hours=hours))
    run = FlowRun(flow_id=uuid4(), name="run", state=found, labels={PROCESS_LABEL: process} if process else {})
    server = Server(run)
    closed = mark_crashed_runs(server, CrashedRunsRequest(), GivenClock())  # type: ignore[arg-type]
    assert server.messages == ([reason] if reason else [])
    assert closed == (["run"] if reason else [])


def test_dead_runs_are_found_behind_many_that_are_alive() -> None:
    alive = State(type=StateType.RUNNING, timestamp=START)
    stuck = State(type=StateType.PENDING, timestamp=START - timedelta(days=1))
    runs = [FlowRun(flow_id=uuid4(), name=f"run-{number}", state=alive) for number in range(400)]
    server = Server(*runs, FlowRun(flow_id=uuid4(), name="stuck", state=stuck))
    assert mark_crashed_runs(server, CrashedRunsRequest(), GivenClock()) == ["stuck"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("process", "made_by", "alone", "dead"),
    [
        (f"{MACHINE}:{PID}:{int(BEGAN) - 60}", {}, False, True),
        (f"{MACHINE}:{PID}:{int(BEGAN) - 60}", {"parent_task_run_id": uuid4()}, False, True),
        (f"{MACHINE}:{PID}:{BEGAN}", {}, True, False),
        (f"elsewhere:{PID}:{BEGAN}", {}, True, False),
        (None, {}, True, True),
        (None, {}, False, False),
        (None, {"deployment_id": uuid4()}, True, False),
        (None, {"parent_task_run_id": uuid4()}, True, False),
    ],
    ids=[
        "dead",
        "dead-subflow",
        "alive",
        "elsewhere",
        "unsigned",
        "unsigned-of-others",
        "deployed",
        "unsigned-subflow",
    ],
)
def test_what_the_next_pipeline_closes(process: str | None, made_by: dict[str, UUID], alone: bool, dead: bool) -> None:
    state = State(type=StateType.RUNNING, timestamp=START)
    labels = {PROCESS_LABEL: process} if process else {}
    run = FlowRun.model_validate({"flow_id": uuid4(), "state": state, "labels": labels, **made_by})
    assert bool(reason_if_left_open(run, alone=alone)) is dead
