"""Mirrors a pipeline run to MLflow: its configuration, its steps, their counts, curves and plots.

Tracking decides nothing and stops nothing, but a model is registered only when the tracker knows all of its run.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.digests import code_digest, sha256_json
from gme_data.steps import Outcome, PlannedStep
from gme_release.run_facts import RunFacts
from gme_release.tracking.follower import Follower, RunDescription, flush_outboxes
from gme_release.tracking.tags import FLOW_RUN, FOLLOWED

if TYPE_CHECKING:
    from flows.chain import Chain
    from flows.config import PipelineConfig

_VERSIONS = ("gme-foundry", "torch", "transformers", "deepspeed", "mlflow", "dvc", "prefect")
_ARTIFACTS = ("loss.svg", "curves.svg", "curves.json", "funnel.svg", "funnel.json", "verdict.json", "scores.json")
"""Files of a step's output that are logged with its run, where it has them."""
_current: list[Follower] = []
"""The follower of the running pipeline; there is one at a time, see `flows.server.hold_workspace`."""


@contextmanager
def mirror_run(config: PipelineConfig, chain: Chain, workspace: Path, flow_run: Mapping[str, str]) -> Iterator[None]:
    """Mirrors the pipeline run that happens in the block.

    Args:
        config: The pipeline.
        chain: Its steps.
        workspace: The workspace.
        flow_run: ``id`` and, if there is a page, ``url`` of the orchestrator's run.
    """
    follower = Follower(workspace, _describe_run(config, chain, flow_run))
    _current.append(follower)
    status: str | None = "FAILED"
    try:
        yield
        status = None  # the registration has ended the run
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        _current.remove(follower)
        follower.close(status)


@contextmanager
def follow_step(planned: PlannedStep, number: int) -> Iterator[Callable[[Outcome], None]]:
    """Mirrors the step that works in the block; the block passes its outcome to the function that is yielded.

    Args:
        planned: The step.
        number: Number of the step in the chain, from 1, by which MLflow orders the runs of the steps.
    """
    outcomes: list[Outcome] = []
    if not _current:
        yield outcomes.append
        return
    follower, name = _current[-1], planned.step.log_name
    follower.begin_step(name, f"{number} {planned.step.name}", planned.key, planned.config.model_dump(mode="json"))
    try:
        yield outcomes.append
    except BaseException:
        follower.end_step(name, "FAILED")
        raise
    [outcome] = outcomes
    plots = [path for path in sorted((outcome.folder / "plots").glob("*.svg")) if planned.step.role == "report"]
    files = [*(outcome.folder / name for name in _ARTIFACTS), *plots]
    follower.end_step(name, "FINISHED", counts=outcome.manifest.counts, files=files)


def wait_until_synced(facts: RunFacts, workspace: Path) -> RunFacts:
    """Waits until the tracker knows all of the run, and returns the facts with a tag that names it.

    Raises:
        TrackerError: The tracker does not answer; finished steps stay done, and a rerun goes on from here.
    """
    if not _current or not _current[-1].name:
        flush_outboxes(workspace)
        return facts
    follower = _current[-1]
    follower.flush()
    return replace(facts, tags={**facts.tags, FOLLOWED: follower.name})


def _describe_run(config: PipelineConfig, chain: Chain, flow_run: Mapping[str, str]) -> RunDescription:
    values = config.model_dump(mode="json")
    flow_tags = {f"{FLOW_RUN}{name}": value for name, value in flow_run.items() if value}
    return RunDescription(
        key=sha256_json([config.name, values]),
        name=run_name(config.name),
        experiment=config.release.experiment,
        config=values,
        tags={**_code_tags(chain), **flow_tags, **_machine_tags()},
    )


def run_name(pipeline: str) -> str:
    """Returns the name of a run that begins now."""
    return f"{pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def _code_tags(chain: Chain) -> dict[str, str]:
    modules = {step.module for step in chain}
    tags = {"gme.code": code_digest(sorted(modules)), **_git_tags()}
    return {**tags, **{f"gme.version.{name}": version for name in _VERSIONS if (version := _version(name))}}


def _machine_tags() -> dict[str, str]:
    return {
        "gme.python": platform.python_version(),
        "gme.platform": platform.platform(),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "gme pipeline",
        "mlflow.source.type": "LOCAL",
    }


def _git_tags() -> dict[str, str]:
    """Returns commit and whether files differ from it; empty outside of a checkout."""
    checkout = Path(__file__).resolve().parents[1]
    commit, changes = (
        _git(checkout, "rev-parse", "HEAD"),
        _git(checkout, "status", "--porcelain", "--untracked-files=no"),
    )
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "gme.git.dirty": str(bool(changes)).lower()}


def _git(checkout: Path, *arguments: str) -> str:
    try:
        completed = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return completed.stdout.strip() if completed.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
