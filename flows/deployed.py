"""The flows that Prefect deploys: started by a person from a form, or by a schedule.

Each takes one frozen request, so that Prefect validates it before a run exists. `flows.slots` decides whether a firing
has anything to do; `flows.pipeline` does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.context import FlowRunContext
from pydantic import AwareDatetime

from flows.chain import run_alone
from flows.chains import pipeline_chain
from flows.clock import SystemClock
from flows.config import PipelineConfig, load_pipeline
from flows.flow_start import start_flow
from flows.notify import notify, on_crashed, on_failure
from flows.pipeline import run_pipeline
from flows.preflight import require_ready
from flows.schedule import Schedule
from flows.server import hold_workspace
from flows.settings import FlowSettings
from flows.slots import Slot, SlotState, fire
from gme_data.redact import redacted_errors
from gme_data.settings import Frozen, load_config


class Request(Frozen):
    """The parameters of every flow."""

    config: Path = Path("configs/tiny.yaml")
    """The pipeline file."""
    overrides: tuple[str, ...] = ()
    """Fields to set on top of it, such as stage_1.phases.0.steps=2."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports; a relative one is below GME_WORKSPACE."""

    def load(self) -> PipelineConfig:
        """Returns the resolved configuration; raises what `load_pipeline` raises."""
        return load_pipeline(self.config, self.overrides)


class PipelineRequest(Request):
    """The parameters of the whole pipeline."""

    logical_date: AwareDatetime | None = None
    """The slot to run, e.g. a missed one; by default the slot that the schedule fired, else the present time."""
    schedule: Schedule | None = None
    """The deployment's own schedule; its firings give way to newer slots."""


class StepRequest(Request):
    """The parameters of a single step."""

    step: str
    """The step, such as train-1; `gme plan` names those of a pipeline file."""


class StudyRequest(Frozen):
    """The parameters of a study."""

    study: Path = Path("configs/studies/seeds.yaml")
    """The study's file."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports; a relative one is below GME_WORKSPACE."""


@flow(name="gme-scheduled", on_failure=[on_failure], on_crashed=[on_crashed])
def scheduled_pipeline(request: PipelineRequest) -> dict[str, Any]:
    """Runs the whole chain for one slot, at most once, and returns the slot's record."""
    start_flow()
    with redacted_errors():
        return _run_slot(request)


def _run_slot(request: PipelineRequest) -> dict[str, Any]:
    config = request.load()
    workspace = _resolve_workspace(request.workspace)
    date, schedule = _logical_date(request)
    slot = Slot.of(config.name, date, config)
    fired = fire(slot, workspace, lambda: _run(config, workspace), SystemClock(), schedule)
    if fired.ran:
        notify("completed" if fired.record.state == "done" else "gate-closed", fired.summary())
    elif fired.record.state == "skipped":
        notify("skipped", fired.summary())
    return {"ran": fired.ran, "summary": fired.summary(), **fired.record.model_dump(mode="json")}


@flow(name="gme-step", on_failure=[on_failure], on_crashed=[on_crashed])
def one_step(request: StepRequest) -> dict[str, Any]:
    """Runs one step on the outputs in the workspace."""
    start_flow()
    workspace = _resolve_workspace(request.workspace)
    # Prefect stores the message of an error, and shows it to everybody who sees the page.
    with redacted_errors(), hold_workspace(workspace):
        outcome = run_alone(pipeline_chain(request.load()), request.step, workspace)
    return {"step": outcome.step, "reused": outcome.reused, "content": outcome.manifest.content}


@flow(name="gme-study", on_failure=[on_failure], on_crashed=[on_crashed])
def one_study(request: StudyRequest) -> str:
    """Runs a study and returns its table."""
    from flows.study import StudyConfig, study, study_table

    start_flow()
    workspace = _resolve_workspace(request.workspace)
    with redacted_errors(), hold_workspace(workspace):
        return study_table(study(load_config(request.study, StudyConfig), workspace))


def _resolve_workspace(workspace: Path) -> Path:
    return (FlowSettings().workspace / workspace).resolve()


def _run(config: PipelineConfig, workspace: Path) -> tuple[SlotState, str, dict[str, Any]]:
    """Runs the pipeline; returns state, detail and result of the slot's record."""
    with hold_workspace(workspace):
        require_ready(config, workspace)
        record = run_pipeline(config, workspace).record
    return "done" if record.passed else "gate-closed", "; ".join(record.reasons), record.as_dict()


def _logical_date(request: PipelineRequest) -> tuple[Any, Schedule | None]:
    """Returns the slot's date, and the schedule if the schedule fired it."""
    if request.logical_date is not None:
        return request.logical_date, None
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    # A run that a person starts has a start time too, but was not scheduled automatically.
    if run is None or run.expected_start_time is None:
        return SystemClock().now(), None
    return run.expected_start_time, request.schedule if run.auto_scheduled else None
