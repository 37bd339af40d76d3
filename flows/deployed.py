"""The flows that Prefect deploys: what a person fills in as a form, what the schedule fires.

Each takes one frozen request, so that Prefect checks it before a run exists. `flows.slots` tells whether a firing has
anything to do; `flows.pipeline` does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.context import FlowRunContext
from pydantic import AwareDatetime

from flows.begin import begin_run
from flows.chain import run_alone
from flows.chains import pipeline_chain
from flows.clock import SystemClock
from flows.config import PipelineConfig, load_pipeline
from flows.notify import on_crashed, on_failure, tell
from flows.pipeline import run_pipeline
from flows.preflight import require_ready
from flows.schedule import Schedule
from flows.server import hold_workspace
from flows.settings import FlowSettings
from flows.slots import Slot, State, fire
from gme_data.redact import redacted_errors
from gme_data.settings import Frozen, load_config


class Request(Frozen):
    """What every flow is told."""

    config: Path = Path("configs/tiny.yaml")
    """The pipeline file."""
    overrides: tuple[str, ...] = ()
    """Fields to set on top of it, such as stage_1.phases.0.steps=2."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports; a relative one is below GME_WORKSPACE."""

    def load(self) -> PipelineConfig:
        """The resolved configuration. See `load_pipeline` for what it raises."""
        return load_pipeline(self.config, self.overrides)


class PipelineRequest(Request):
    """What the whole pipeline is told."""

    logical_date: AwareDatetime | None = None
    """The slot to run, e.g. a missed one; without it the slot that the schedule fired, else the present moment."""
    schedule: Schedule | None = None
    """The deployment's own schedule; firings of it give way to newer slots."""


class StepRequest(Request):
    """What a flow of one step is told."""

    step: str
    """The step, such as train-1; `gme plan` names those of a pipeline file."""


class StudyRequest(Frozen):
    """What a study is told."""

    study: Path = Path("configs/studies/seeds.yaml")
    """The study's file."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports; a relative one is below GME_WORKSPACE."""


@flow(name="gme-scheduled", on_failure=[on_failure], on_crashed=[on_crashed])
def scheduled_pipeline(request: PipelineRequest) -> dict[str, Any]:
    """The whole chain for one slot, at most once; returns the slot's record."""
    begin_run()
    with redacted_errors():
        return _scheduled(request)


def _scheduled(request: PipelineRequest) -> dict[str, Any]:
    config = request.load()
    workspace = _workspace(request.workspace)
    date, schedule = _logical_date(request)
    slot = Slot.of(config.name, date, config)
    fired = fire(slot, workspace, lambda: _work(config, workspace), SystemClock(), schedule)
    if fired.ran:
        tell("completed" if fired.record.state == "done" else "gate-closed", fired.summary())
    elif fired.record.state == "skipped":
        tell("skipped", fired.summary())
    return {"ran": fired.ran, "summary": fired.summary(), **fired.record.model_dump(mode="json")}


@flow(name="gme-step", on_failure=[on_failure], on_crashed=[on_crashed])
def one_step(request: StepRequest) -> dict[str, Any]:
    """One step on what the workspace holds."""
    begin_run()
    workspace = _workspace(request.workspace)
    with redacted_errors(), hold_workspace(workspace):
        outcome = run_alone(pipeline_chain(request.load()), request.step, workspace)
    return {"step": outcome.step, "reused": outcome.reused, "content": outcome.manifest.content}


@flow(name="gme-study", on_failure=[on_failure], on_crashed=[on_crashed])
def one_study(request: StudyRequest) -> str:
    """A study; returns its table."""
    from flows.study import StudyConfig, study, table

    begin_run()
    workspace = _workspace(request.workspace)
    with redacted_errors(), hold_workspace(workspace):
        return table(study(load_config(request.study, StudyConfig), workspace))


def _workspace(asked: Path) -> Path:
    return (FlowSettings().workspace / asked).resolve()


def _work(config: PipelineConfig, workspace: Path) -> tuple[State, str, dict[str, Any]]:
    with hold_workspace(workspace):
        require_ready(config, workspace)
        record = run_pipeline(config, workspace).record
    return "done" if record.passed else "gate-closed", "; ".join(record.reasons), record.as_dict()


def _logical_date(request: PipelineRequest) -> tuple[Any, Schedule | None]:
    """The slot's date, and the schedule if it was the schedule that fired."""
    if request.logical_date is not None:
        return request.logical_date, None
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.expected_start_time is None:
        return SystemClock().now(), None
    return run.expected_start_time, request.schedule if run.auto_scheduled else None
