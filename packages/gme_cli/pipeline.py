"""`gme pipeline`, `gme plan` and `gme schema`: the whole chain of a pipeline file."""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gme_cli.data import show_data
from gme_cli.options import Common, ReportOptions, print_json, say
from gme_cli.plan import Hardware, show_hardware
from gme_cli.states import show_states

if TYPE_CHECKING:
    from flows.config import PipelineConfig
    from flows.pipeline import PipelineResult

_COMMON, _REPORT = Common(), ReportOptions()
_HARDWARE = Hardware()


def pipeline(*, new_run: Annotated[bool, Parameter(negative="")] = False, common: Common = _COMMON) -> int:
    """Run the whole chain. What is done and undamaged is not done again. Exits with 3 if the gate stays closed.

    Parameters
    ----------
    new_run
        Let the present champion score the pictures of the training data, which are made again if it is another one
        than before. Without it a rerun keeps the picture scorer that its run began with.
    """
    from flows.preflight import DATA, require_ready
    from gme_cli.doctor import require_workspace
    from gme_data.errors import EXIT_GATE_CLOSED

    config = common.pipeline()
    if not common.dry_run:
        require_workspace(common.workspace)
    # A dry run reports what must be fetched first; a run is refused without it.
    require_ready(config, common.workspace.resolve(), ignored=DATA if common.dry_run else ())
    if common.dry_run:
        show_data(config, json=common.json)
        _show_steps(common, new_run=new_run)
        return 0
    result = _run_flow(config, common.workspace.resolve(), new_run=new_run)
    if common.json:
        print_json(_as_dict(result))
    else:
        _print_result(config, common.config, result)
    return 0 if result.record.passed else EXIT_GATE_CLOSED


def show_plan(*, common: ReportOptions = _REPORT, hardware: Hardware = _HARDWARE) -> None:
    """Say for each step whether it is done, and if not, why; with --gpus what training needs on that hardware."""
    if hardware.gpus:
        show_hardware(common, hardware, json=common.json)
    else:
        _show_steps(common, new_run=False)


def _show_steps(common: ReportOptions, *, new_run: bool) -> None:
    from flows.chain import plan
    from flows.chains import pipeline_chain

    show_states(plan(pipeline_chain(common.pipeline()), common.workspace, new_run=new_run), json=common.json)


def schema(*, out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None) -> None:
    """Print the JSON schema of a pipeline file.

    Parameters
    ----------
    out
        Write it to this file instead.
    """
    import json

    from flows.config import pipeline_schema

    text = json.dumps(pipeline_schema(), indent=1)
    if out is None:
        say(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _run_flow(config: PipelineConfig, workspace: Path, *, new_run: bool) -> PipelineResult:
    from flows.server import prefect_workspace

    with prefect_workspace(workspace, lambda: _preload(config)):
        # Prefect reads its settings when it is imported, so nothing above may import it.
        from flows.console import quiet_orchestrator
        from flows.pipeline import run_pipeline

        if not os.environ.get("GME_DEBUG"):
            quiet_orchestrator()
        return run_pipeline(config, workspace, new_run=new_run)


def _preload(config: PipelineConfig) -> None:
    """Imports what the run needs, and hashes the code of its steps: seconds of work while the server starts."""
    gc.disable()  # imported modules are never freed, so searching them for garbage is in vain, now and later
    importlib.import_module("flows.pipeline")
    from flows.chains import pipeline_chain
    from gme_data.digests import code_digest
    from gme_release.registry.registration import preload_mlflow

    for step in pipeline_chain(config):
        code_digest([step.module])  # caches the digests of the files
    preload_mlflow()
    gc.freeze()
    gc.enable()


def _print_result(config: PipelineConfig, path: Path, result: PipelineResult) -> None:
    scores = result.record.scores
    say("")
    say(f"{config.name}: {result.record.summary()}")
    width = max(len(task_type) for task_type in scores["types"])
    say("  ".join(f"{task_type:<{width}} {value:.3f}" for task_type, value in scores["types"].items()))
    say(f"{result.seconds / 60:.1f} minutes. Report: {result.record.report}")
    for reason in result.record.reasons:
        say(f"  gate: {reason}")
    say(f"Next: `make dashboard`; `{_search_command(config, path)}`.")


def _search_command(config: PipelineConfig, path: Path) -> str:
    """Returns a command to try the model with; only Atlas has flags to search."""
    from flows.config import OwnPipeline

    if isinstance(config, OwnPipeline):
        return f'gme search "what you look for" --config {path}'
    return 'gme search "a flag with a red disc" --in flags'


def _as_dict(result: PipelineResult) -> dict[str, object]:
    steps = {
        name: {"reused": outcome.reused, "seconds": outcome.manifest.seconds, "content": outcome.manifest.content}
        for name, outcome in result.outcomes.items()
    }
    return {"steps": steps, "seconds": round(result.seconds, 1), **result.record.as_dict()}
