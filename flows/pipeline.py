"""The weekly run, in the order of the README's figure. Every task calls one link of `flows.chain`; results are on disk.

Prefect orders, shows and records. Its caches decide nothing: whether a step is done is told by its key and its files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import artifacts
from flows.apart import end_running
from flows.begin import sign_run
from flows.chain import find_made
from flows.config import PipelineConfig
from flows.console import announce
from flows.records import Record, record
from flows.server import is_passing
from flows.tracking import run_followed, tracked
from flows.transient import is_of_prefect, retry_transient
from gme_data.errors import FoundryError
from gme_data.redact import redacted_errors
from gme_data.steps import Outcome

_LOGGER = logging.getLogger(__name__)
_TWO_AT_A_TIME: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=2)


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """What a run ends with: the outcome of every step, the record of the release, and the wall time in seconds."""

    outcomes: dict[str, Outcome]
    record: Record
    seconds: float


_ended: list[PipelineResult | BaseException] = []  # one pipeline at a time in a process, see `flows.server`


def run_pipeline(config: PipelineConfig, workspace: Path) -> PipelineResult:
    """`pipeline`, whose result counts even if Prefect can't be told of it any more.

    Raises:
        FoundryError: What the failing step says, or that Prefect's server was lost before the end; finished steps stay.
    """
    _ended.clear()
    try:
        return pipeline(config, workspace)
    except Exception as error:
        end = _ended.pop() if _ended else error
        if end is not error:
            _LOGGER.warning("Prefect could not be told how the run ended (%s).", type(error).__name__)
        if isinstance(end, PipelineResult):
            return end
        if end is not error:
            raise end from error
        if is_of_prefect(error):
            # The type alone: the text may hold the address of the server or its database.
            raise FoundryError(
                f"Prefect's server does not answer ({type(error).__name__}).",
                hint="Run the same command again: finished steps stay.",
                exit_code=1,
            ) from error
        raise


@flow(name="gme-pipeline", task_runner=_TWO_AT_A_TIME, validate_parameters=False)
def pipeline(config: PipelineConfig, workspace: Path) -> PipelineResult:
    """Data to registered model.

    Raises:
        FoundryError: What the failing step says; the steps before it stay done.
    """
    sign_run()
    try:
        with redacted_errors(), tracked(config, workspace, _flow_run()):
            result = _run_chain(config, workspace)
        _ended.append(result)
    except BaseException as error:
        _ended.append(error)
        # A step that another thread waits for would hold up the end of the flow until it is done.
        end_running()
        raise
    return result


def _flow_run() -> dict[str, str]:
    """``id`` and ``url`` of the run; a server that ends with the run has no page."""
    url = "" if is_passing() else str(flow_run.ui_url)
    return {"id": str(flow_run.id), "url": url if url.startswith("http") else ""}


def _run_chain(config: PipelineConfig, workspace: Path) -> PipelineResult:
    started = time.monotonic()
    done: dict[str, Outcome] = {}

    def run(name: str, show: Callable[[Outcome], None] | None = None) -> None:
        done[name] = _step(name).with_options(name=name)(name, config, dict(done), workspace)
        if show:
            _show(show, done[name])

    run("corpus")
    # The baselines need the corpus alone, so they use the core that the single-threaded steps leave free.
    baselines = _step("baselines").submit("baselines", config, dict(done), workspace)
    run("synthesize", artifacts.funnel)
    run("validate", artifacts.validation)
    done["baselines"] = baselines.result()
    run("train-1", artifacts.training)
    run("mine")
    run("train-2", artifacts.training)
    run("evaluate")
    run("report", artifacts.scores)
    released = _record(config, done, workspace)
    _show(artifacts.verdict, released)
    return PipelineResult(done, released, time.monotonic() - started)


def _show(show: Callable[[Any], None], what: Outcome | Record) -> None:
    """Make an artifact. A page that can't be shown is no reason to lose a run."""
    try:
        show(what)
    except Exception:
        _LOGGER.warning("The artifact '%s' could not be made.", show.__name__, exc_info=True)


def _step(name: str) -> Any:  # noqa: ANN401 - a Prefect task, whose type depends on the wrapped function
    return _run_step.with_options(name=name)


@task(cache_policy=NO_CACHE, persist_result=False)
def _run_step(name: str, config: PipelineConfig, done: dict[str, Outcome], workspace: Path) -> Outcome:
    with redacted_errors(), announce(name) as line:
        outcome = find_made(name, config, done, workspace) or run_followed(name, config, done, workspace)
        line.finish(outcome)
    return outcome


@task(
    name="register",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_condition_fn=retry_transient,
)
def _record(config: PipelineConfig, done: dict[str, Outcome], workspace: Path) -> Record:
    with redacted_errors(), announce("register") as line:
        released = record(config, done, workspace)
        line.finish_record(released.summary())
    return released
