"""Closes what no process stands behind any more: runs that say RUNNING or PENDING in Prefect though their time is over.

A process that was killed cannot say so itself, and its run would hold its place under a concurrency limit for ever.
On a server it is a deployment; a pipeline that is started by hand closes what the one before it left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Crashed
from pydantic import Field

from flows.begin import PROCESS, begin_run, is_gone
from flows.clock import Clock, SystemClock
from flows.notify import tell
from gme_data.settings import Frozen

_PAGE = 200
_OPEN = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
_GONE = "its process is gone"
_FLUSH_SECONDS = 15.0
_LOGGER = logging.getLogger(__name__)


class SweepRequest(Frozen):
    """When a run counts as dead."""

    pending_minutes: float = Field(default=30, gt=0)
    """A run that a worker took but did not begin."""
    running_hours: float = Field(default=48, gt=0)
    """A run that says it is running on another machine; longer than the longest real one. Here the process is asked."""


@flow(name="gme-sweep")
def sweep(request: SweepRequest) -> list[str]:
    """Close dead runs; returns their names."""
    begin_run()
    with get_client(sync_client=True) as client:
        return close_dead(client, request, SystemClock())


def close_dead(client: SyncPrefectClient, request: SweepRequest, clock: Clock) -> list[str]:
    """As the flow, on a given server and clock."""
    now = clock.now()
    closed = _close(client, lambda run: _dead(run, request, now))
    for run, reason in closed:
        tell("crashed", f"{run.name} is closed: {reason}", str(run.id))
    return [run.name for run, _ in closed]


def close_left_open(*, alone: bool) -> list[str]:
    """Close what earlier pipelines of this machine left open; returns the names of the runs. Best effort.

    Args:
        alone: Nobody else starts pipelines by hand on this server's database: then a run that neither a deployment nor
            another run made is dead even if it was killed before it could say which process stands behind it.
    """
    try:
        with get_client(sync_client=True) as client:
            return [run.name for run, _ in _close(client, lambda run: left_open(run, alone=alone))]
    except Exception:
        _LOGGER.warning("What earlier runs left open in Prefect could not be closed.", exc_info=True)
        return []


def left_open(run: FlowRun, *, alone: bool) -> str:
    """Why an open run is dead; empty if it may live. See `close_left_open`."""
    process = run.labels.get(PROCESS)
    by_hand = run.deployment_id is None and run.parent_task_run_id is None
    gone = is_gone(str(process)) if process else alone and by_hand
    return _GONE if gone else ""


def flush() -> None:
    """Send what Prefect still holds back, states of tasks and logs, while its server is there."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_FLUSH_SECONDS)


def _close(client: SyncPrefectClient, reason_of: Callable[[FlowRun], str]) -> list[tuple[FlowRun, str]]:
    """Set every open run that there is a reason for, and its tasks, to Crashed."""
    closed = [(run, reason) for run in _open_runs(client) if (reason := reason_of(run))]
    for run, reason in closed:
        client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
        _close_tasks(client, run, reason)
    return closed


def _close_tasks(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    of_run = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    chosen = TaskRunFilter.model_validate({"state": _OPEN})
    while tasks := client.read_task_runs(flow_run_filter=of_run, task_run_filter=chosen, limit=_PAGE):
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message=reason), force=True)


def _open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Every run that says it is running or pending; all are read before any is closed, which would shift the pages."""
    chosen = FlowRunFilter.model_validate({"state": _OPEN})
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


def _dead(run: FlowRun, request: SweepRequest, now: datetime) -> str:
    if run.state is None:
        return ""
    age = now - run.state.timestamp
    if run.state.is_pending():
        return "no worker began it" if age > timedelta(minutes=request.pending_minutes) else ""
    process = run.labels.get(PROCESS)
    gone = is_gone(str(process)) if process else None
    if gone:
        return _GONE
    return "it is running for too long" if gone is None and age > timedelta(hours=request.running_hours) else ""
