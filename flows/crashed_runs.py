"""Marks crashed runs: runs that are RUNNING or PENDING in Prefect though no process works at them.

A process that was killed can't report that itself, and its run would count against a concurrency limit for ever. On a
server this is a deployment; a pipeline that is started by hand marks the runs that earlier ones left open.
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

from flows.clock import Clock, SystemClock
from flows.flow_start import PROCESS_LABEL, has_ended, start_flow
from flows.notify import notify
from gme_data.settings import Frozen

_PAGE = 200
_OPEN = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
_GONE = "its process is gone"
_FLUSH_SECONDS = 15.0
_LOGGER = logging.getLogger(__name__)


class CrashedRunsRequest(Frozen):
    """After how long a run counts as crashed."""

    pending_minutes: float = Field(default=30, gt=0)
    """Minutes after which a run that a worker took, but did not begin, counts as crashed."""
    running_hours: float = Field(default=48, gt=0)
    """Hours after which a run on another machine counts as crashed; on this machine its process is looked up."""


@flow(name="gme-sweep")
def crashed_runs(request: CrashedRunsRequest) -> list[str]:
    """Marks crashed runs and returns their names."""
    start_flow()
    with get_client(sync_client=True) as client:
        return mark_crashed_runs(client, request, SystemClock())


def mark_crashed_runs(client: SyncPrefectClient, request: CrashedRunsRequest, clock: Clock) -> list[str]:
    """Marks the crashed runs of a server, tells the webhook of each, and returns their names."""
    now = clock.now()
    closed = _mark_crashed(client, lambda run: _reason_if_crashed(run, request, now))
    for run, reason in closed:
        notify("crashed", f"{run.name} is closed: {reason}", str(run.id))
    return [run.name for run, _ in closed]


def mark_left_open(*, alone: bool) -> list[str]:
    """Marks the runs that earlier pipelines of this machine left open; returns their names, logs errors.

    Args:
        alone: Whether no other machine starts pipelines by hand on this server's database. Then a run without
            deployment and parent is crashed even if it was killed before its process was noted.
    """
    try:
        with get_client(sync_client=True) as client:
            return [run.name for run, _ in _mark_crashed(client, lambda run: reason_if_left_open(run, alone=alone))]
    except Exception:
        _LOGGER.warning("What earlier runs left open in Prefect could not be closed.", exc_info=True)
        return []


def reason_if_left_open(run: FlowRun, *, alone: bool) -> str:
    """Returns why an open run is crashed; empty if it may be alive. See `mark_left_open`."""
    process = run.labels.get(PROCESS_LABEL)
    by_hand = run.deployment_id is None and run.parent_task_run_id is None
    crashed = has_ended(str(process)) if process else alone and by_hand
    return _GONE if crashed else ""


def flush_prefect() -> None:
    """Sends the states of tasks and the logs that Prefect still buffers, before its server ends."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_FLUSH_SECONDS)


def _mark_crashed(client: SyncPrefectClient, reason_of: Callable[[FlowRun], str]) -> list[tuple[FlowRun, str]]:
    """Sets every open run for which `reason_of` is not empty, and its tasks, to Crashed."""
    closed = [(run, reason) for run in _open_runs(client) if (reason := reason_of(run))]
    for run, reason in closed:
        # Forced: Prefect's rules of orchestration could reject the transition.
        client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
        _mark_tasks(client, run, reason)
    return closed


def _mark_tasks(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    of_run = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    open_filter = TaskRunFilter.model_validate({"state": _OPEN})
    while tasks := client.read_task_runs(flow_run_filter=of_run, task_run_filter=open_filter, limit=_PAGE):
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message=reason), force=True)


def _open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Returns every running or pending run; all are read before any is changed, which would shift the pages."""
    open_filter = FlowRunFilter.model_validate({"state": _OPEN})
    runs: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            flow_run_filter=open_filter, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=len(runs)
        )
        runs += page
        if len(page) < _PAGE:
            return runs


def _reason_if_crashed(run: FlowRun, request: CrashedRunsRequest, now: datetime) -> str:
    if run.state is None:
        return ""
    age = now - run.state.timestamp
    if run.state.is_pending():
        return "no worker began it" if age > timedelta(minutes=request.pending_minutes) else ""
    process = run.labels.get(PROCESS_LABEL)
    ended = has_ended(str(process)) if process else None
    if ended:
        return _GONE
    return "it is running for too long" if ended is None and age > timedelta(hours=request.running_hours) else ""
