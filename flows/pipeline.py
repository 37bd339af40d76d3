"""A chain as a Prefect flow: one task for each step, with the step's inputs as dependencies; results are on disk.

Prefect orders, shows and records. Its caches are off: whether a step is done is decided by its key and its files.
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
from flows.chain import Chain, plan_step
from flows.chains import pipeline_chain
from flows.config import PipelineConfig
from flows.console import announce_step
from flows.flow_start import label_run
from flows.run_record import RunRecord, record_run
from flows.server import is_temporary_server
from flows.step_process import kill_running_steps, run_in_process
from flows.tracking import follow_step, mirror_run, run_name
from flows.transient import is_of_prefect, retry_transient
from gme_data.errors import FoundryError
from gme_data.redact import redacted_errors
from gme_data.steps import Outcome, PlannedStep, Step, find_done

_LOGGER = logging.getLogger(__name__)
_TWO_AT_A_TIME: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=2)


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """The end of a run: the outcome of every step, what was recorded, and the wall time in seconds."""

    outcomes: dict[str, Outcome]
    record: RunRecord
    seconds: float


_ended: list[PipelineResult | BaseException] = []
"""Result or error of the last pipeline of this process; there is one at a time, see `flows.server.hold_workspace`."""


def run_pipeline(config: PipelineConfig, workspace: Path, *, new_run: bool = False) -> PipelineResult:
    """Runs `pipeline` and returns its result, even if Prefect's server was lost after the work was done.

    Raises:
        FoundryError: A step raises it, or Prefect's server was lost before the end. Finished steps stay.
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
    """Returns the name of the flow run: pipeline and date, as in MLflow."""
    return run_name(flow_run.parameters["config"].name)


@flow(name="gme-pipeline", flow_run_name=_run_name, task_runner=_TWO_AT_A_TIME, validate_parameters=False)
def pipeline(config: PipelineConfig, workspace: Path, *, new_run: bool = False) -> None:
    """Runs the chain, from data to the registered model; for `new_run` see `flows.picture_scorer`.

    The result is handed over in `_ended`, not returned: Prefect would look for futures in every file of every manifest.

    Raises:
        FoundryError: A step raises it; the steps before it stay done.
    """
    label_run()
    try:
        with redacted_errors():
            config = config.sealed()
            chain = pipeline_chain(config)
            # A server that ends with the run has no page.
            url = "" if is_temporary_server() else str(flow_run.ui_url)
            flow_tags = {"id": str(flow_run.id), "url": url if url.startswith("http") else ""}
            with mirror_run(config, chain, workspace, flow_tags):
                result = _run_chain(config, chain, workspace, new_run=new_run)
        _ended.append(result)
    except BaseException as error:
        _ended.append(error)
        # Prefect waits for all its threads, and so for every step that still runs, before the flow ends.
        kill_running_steps()
        raise


def _run_chain(config: PipelineConfig, chain: Chain, workspace: Path, *, new_run: bool) -> PipelineResult:
    """Submits every step when its inputs are done, so that Prefect's graph has an edge for each input."""
    started = time.monotonic()
    futures: dict[str, PrefectFuture[Outcome]] = {}
    for number, step in enumerate(chain, start=1):
        # A step that takes the whole machine waits for all before it, and all after it wait for it.
        for name in chain.names[: number - 1] if step.alone else (*step.inputs.values(), *step.after):
            futures[name].result()
        inputs = {source: futures[source] for source in step.inputs.values()}
        gates = [futures[name] for name in step.after]
        asset = f"gme://{config.name}/{step.output}" if step.role in ("dataset", "model") else ""
        task = _task_of(step, asset)
        # Quoted: Prefect would walk through the chain's configuration in search of futures.
        futures[step.name] = task.submit(quote(chain), number, inputs, workspace, asset, new_run, wait_for=gates)
        if step.alone:
            futures[step.name].wait()
    done = {name: future.result() for name, future in futures.items()}
    register: Any = _record  # its own types don't know that Prefect unwraps `quote`
    last = [futures[chain.last(role).name] for role in ("model", "report")]
    record: RunRecord = register(config, quote(chain), quote(done), workspace, wait_for=last)
    _show(artifacts.verdict, record)
    return PipelineResult(done, record, time.monotonic() - started)


def _show(show: Callable[[Any], None], what: Outcome | RunRecord) -> None:
    """Makes an artifact; an error is logged, since it is no reason to lose a run."""
    try:
        show(what)
    except Exception:
        _LOGGER.warning("The artifact '%s' could not be made.", show.__name__, exc_info=True)


def _task_of(step: Step, asset: str) -> Any:  # noqa: ANN401 - its types do not know what Prefect unwraps
    """Returns the task that runs a step; for data and models it makes an asset with the key `asset`."""
    options: Any = {"name": step.name, "cache_policy": NO_CACHE, "persist_result": False}
    return materialize(asset, **options)(_run_step) if asset else task(**options)(_run_step)


def _run_step(
    chain: Chain, number: int, inputs: dict[str, Outcome], workspace: Path, asset: str, new_run: bool
) -> Outcome:
    """Runs step `number` of the chain, counted from 1, unless its output is there."""
    step = chain.steps[number - 1]
    with redacted_errors(), announce_step(step.name) as line:
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
    """Runs a step in a process of its own, with its progress in the task's log, and mirrors it to MLflow."""
    with follow_step(planned, number) as finish:
        outcome = run_in_process(planned, workspace, get_run_logger().info)
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
def _record(config: PipelineConfig, chain: Chain, done: dict[str, Outcome], workspace: Path) -> RunRecord:
    with redacted_errors(), announce_step("register") as line:
        record = record_run(config, chain, done, workspace)
        line.finish_record(record.summary())
    return record
