"""A chain as a Prefect flow: a task a step, whose arrows are the step's inputs; results are on disk.

Prefect orders, shows and records. Its caches decide nothing: whether a step is done is told by its key and its files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows import artifacts
from flows.apart import end_running, run_apart
from flows.begin import sign_run
from flows.chain import Chain, plan_step
from flows.chains import pipeline_chain
from flows.config import PipelineConfig
from flows.console import announce
from flows.records import Record, record
from flows.server import is_passing
from flows.tracking import followed, run_name, tracked
from flows.transient import is_of_prefect, retry_transient
from gme_data.errors import FoundryError
from gme_data.redact import redacted_errors
from gme_data.steps import Outcome, PlannedStep, Step, find_done

_LOGGER = logging.getLogger(__name__)
_TWO_AT_A_TIME: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=2)


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """What a run ends with: the outcome of every step, the record of the release, and the wall time in seconds."""

    outcomes: dict[str, Outcome]
    record: Record
    seconds: float


_ended: list[PipelineResult | BaseException] = []  # one pipeline at a time in a process, see `flows.server`


def run_pipeline(config: PipelineConfig, workspace: Path, *, new_run: bool = False) -> PipelineResult:
    """`pipeline`, whose result counts even if Prefect can't be told of it any more.

    Raises:
        FoundryError: What the failing step says, or that Prefect's server was lost before the end; finished steps stay.
    """
    _ended.clear()
    try:
        pipeline(config, workspace, new_run=new_run)
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
    return cast("PipelineResult", _ended.pop())


def _run_name() -> str:
    """After pipeline and date, as in MLflow."""
    return run_name(flow_run.parameters["config"].name)


@flow(name="gme-pipeline", flow_run_name=_run_name, task_runner=_TWO_AT_A_TIME, validate_parameters=False)
def pipeline(config: PipelineConfig, workspace: Path, *, new_run: bool = False) -> None:
    """Data to registered model; with `new_run` the present champion judges pictures, whoever judged before.

    Its result goes past Prefect, which would look for futures in every file of every manifest; see `run_pipeline`.

    Raises:
        FoundryError: What the failing step says; the steps before it stay done.
    """
    sign_run()
    try:
        with redacted_errors():
            config = config.sealed()
            chain = pipeline_chain(config)
            with tracked(config, chain, workspace, _flow_run()):
                result = _run_chain(config, chain, workspace, new_run=new_run)
        _ended.append(result)
    except BaseException as error:
        _ended.append(error)
        # A step that another thread waits for would hold up the end of the flow until it is done.
        end_running()
        raise


def _flow_run() -> dict[str, str]:
    """``id`` and ``url`` of the run; a server that ends with the run has no page."""
    url = "" if is_passing() else str(flow_run.ui_url)
    return {"id": str(flow_run.id), "url": url if url.startswith("http") else ""}


def _run_chain(config: PipelineConfig, chain: Chain, workspace: Path, *, new_run: bool) -> PipelineResult:
    """Submit every step when what it needs is done; its arrows in Prefect's graph are its inputs."""
    started = time.monotonic()
    futures: dict[str, PrefectFuture[Outcome]] = {}
    for number, step in enumerate(chain, start=1):
        for name in chain.names[: number - 1] if step.alone else (*step.inputs.values(), *step.after):
            futures[name].result()
        inputs = {source: futures[source] for source in step.inputs.values()}
        gates = [futures[name] for name in step.after]
        asset = f"gme://{config.name}/{step.output}" if step.role in ("dataset", "model") else ""
        task = _task_of(step, asset)
        futures[step.name] = task.submit(quote(chain), number, inputs, workspace, asset, new_run, wait_for=gates)
        if step.alone:
            futures[step.name].wait()
    done = {name: future.result() for name, future in futures.items()}
    judged: Any = _record
    last = [futures[chain.last(role).name] for role in ("model", "report")]
    released: Record = judged(config, quote(chain), quote(done), workspace, wait_for=last)
    _show(artifacts.verdict, released)
    return PipelineResult(done, released, time.monotonic() - started)


def _show(show: Callable[[Any], None], what: Outcome | Record) -> None:
    """Make an artifact. A page that can't be shown is no reason to lose a run."""
    try:
        show(what)
    except Exception:
        _LOGGER.warning("The artifact '%s' could not be made.", show.__name__, exc_info=True)


def _task_of(step: Step, asset: str) -> Any:  # noqa: ANN401 - its types do not know what Prefect unwraps
    """The task that runs a step; data and models are assets, which Prefect knows by key."""
    options: Any = {"name": step.name, "cache_policy": NO_CACHE, "persist_result": False}
    return materialize(asset, **options)(_run_step) if asset else task(**options)(_run_step)


def _run_step(
    chain: Chain, number: int, inputs: dict[str, Outcome], workspace: Path, asset: str, new_run: bool
) -> Outcome:
    """Run the step of that number in the chain, from 1, unless its output is there."""
    step = chain.steps[number - 1]
    with redacted_errors(), announce(step.name) as line:
        planned = plan_step(chain, step, inputs, workspace, new_run=new_run)
        outcome = find_done(planned, workspace) or _work(planned, number, workspace)
        line.finish(outcome)
    if show := artifacts.artifact_of(step):
        _show(show, outcome)
    if asset:
        files = outcome.manifest.files
        size = sum(entry.bytes for entry in files)
        add_asset_metadata(asset, {"sha256": outcome.manifest.content, "files": len(files), "bytes": size})
    return outcome


def _work(planned: PlannedStep, number: int, workspace: Path) -> Outcome:
    """Run a step in a process of its own; its progress stands in the task's log."""
    with followed(planned, number) as finish:
        outcome = run_apart(planned, workspace, get_run_logger().info)
        finish(outcome)
    return outcome


@task(
    name="register",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_condition_fn=retry_transient,
)
def _record(config: PipelineConfig, chain: Chain, done: dict[str, Outcome], workspace: Path) -> Record:
    with redacted_errors(), announce("register") as line:
        released = record(config, chain, done, workspace)
        line.finish_record(released.summary())
    return released
