"""Closes what no process stands behind any more: runs that say RUNNING or PENDING in Prefect though their time is over.

A process that was killed cannot say so itself, and its run would hold its place under a concurrency limit for ever.
"""

from __future__ import annotations

import logging
import os
import socket
from datetime import datetime, timedelta

import psutil
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Crashed
from pydantic import Field

from flows.clock import Clock, SystemClock
from flows.notify import tell
from gme_data.settings import Frozen

PROCESS = "gme.process"
_PAGE = 200
_LOGGER = logging.getLogger(__name__)


class SweepRequest(Frozen):
    """When a run counts as dead."""

    pending_minutes: float = Field(default=30, gt=0)
    """A run that a worker took but did not begin."""
    running_hours: float = Field(default=48, gt=0)
    """A run that says it is running on another machine; longer than the longest real one. Here the process is asked."""


def sign() -> str:
    """Names this process for `sweep`: machine, process id, and when it began (ids are used again)."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def sign_run() -> None:
    """Note in Prefect which process stands behind the present flow run. Best effort: without it only time tells."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(context.flow_run.id, {PROCESS: sign()})
    except Exception:
        _LOGGER.warning("The process of this run could not be noted in Prefect.", exc_info=True)


def is_gone(process: str) -> bool | None:
    """Whether a signed process has ended; None if it is of another machine."""
    machine, pid, began = process.rsplit(":", 2)
    if machine != _machine():
        return None
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) > 1)
    except psutil.NoSuchProcess:
        return True


@flow(name="gme-sweep")
def sweep(request: SweepRequest) -> list[str]:
    """Close dead runs; returns their names."""
    with get_client(sync_client=True) as client:
        return close_dead(client, request, SystemClock())


def close_dead(client: SyncPrefectClient, request: SweepRequest, clock: Clock) -> list[str]:
    """As the flow, on a given server and clock."""
    closed = []
    for run in _open_runs(client):
        reason = _dead(run, request, clock.now())
        if reason:
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
            tell("crashed", f"{run.name} is closed: {reason}", str(run.id))
            closed.append(run.name)
    return closed


def _open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Every run that says it is running or pending; all are read before any is closed, which would shift the pages."""
    states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
    chosen = FlowRunFilter.model_validate({"state": states})
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
        return "its process is gone"
    return "it is running for too long" if gone is None and age > timedelta(hours=request.running_hours) else ""


def _machine() -> str:
    return socket.gethostname()
