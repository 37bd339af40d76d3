"""Ties a pipeline run to its mirror in MLflow: what is asked for, which step works, what it leaves to look at.

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

from flows.chain import Chain
from flows.config import PipelineConfig
from gme_data.digests import code_digest, sha256_json
from gme_data.steps import Outcome, PlannedStep
from gme_release.follower import Follower, RunPlan, settle_leftovers
from gme_release.records import FLOW_RUN, RunFacts

_VERSIONS = ("gme-foundry", "torch", "transformers", "deepspeed", "mlflow", "dvc", "prefect")
_SHOWN = ("loss.svg", "curves.svg", "curves.json", "funnel.svg", "funnel.json", "verdict.json", "scores.json")
_current: list[Follower] = []  # one pipeline at a time in a process, see `flows.server`


@contextmanager
def tracked(config: PipelineConfig, chain: Chain, workspace: Path, flow_run: Mapping[str, str]) -> Iterator[None]:
    """Mirror what happens inside the block.

    Args:
        config: The pipeline.
        chain: Its steps.
        workspace: Where it works.
        flow_run: ``id`` and perhaps ``url`` of the orchestrator's run.
    """
    follower = Follower(workspace, _plan(config, chain, flow_run))
    _current.append(follower)
    status: str | None = "FAILED"
    try:
        yield
        status = None
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        _current.remove(follower)
        follower.close(status)


@contextmanager
def followed(planned: PlannedStep, number: int) -> Iterator[Callable[[Outcome], None]]:
    """A run inside the pipeline's while a step works in the block, which hands its outcome to what is yielded.

    Args:
        planned: The step.
        number: Its place in the chain, from 1, by which the steps of a run are ordered.
    """
    made: list[Outcome] = []
    if not _current:
        yield made.append
        return
    follower, name = _current[-1], planned.step.log_name
    follower.begin_step(name, f"{number} {planned.step.name}", planned.key, planned.config.model_dump(mode="json"))
    try:
        yield made.append
    except BaseException:
        follower.end_step(name, "FAILED")
        raise
    [outcome] = made
    plots = [path for path in sorted((outcome.folder / "plots").glob("*.svg")) if planned.step.role == "report"]
    files = [*(outcome.folder / shown for shown in _SHOWN), *plots]
    follower.end_step(name, "FINISHED", counts=outcome.manifest.counts, files=files)


def settled(facts: RunFacts, workspace: Path) -> RunFacts:
    """Facts that name the run that followed the work; the tracker knows all of it.

    Raises:
        TrackerError: The tracker does not answer; the work is done and kept, and a rerun goes on from here.
    """
    if not _current or not _current[-1].name:
        settle_leftovers(workspace)
        return facts
    follower = _current[-1]
    follower.settle()
    return replace(facts, tags={**facts.tags, "gme.followed": follower.name})


def _plan(config: PipelineConfig, chain: Chain, flow_run: Mapping[str, str]) -> RunPlan:
    values = config.model_dump(mode="json")
    return RunPlan(
        key=sha256_json([config.name, values]),
        name=run_name(config.name),
        experiment=config.release.experiment,
        config=values,
        tags={**_code_tags(chain), **_flow_tags(flow_run), **_place_tags()},
    )


def run_name(pipeline: str) -> str:
    """What a run of a pipeline that begins now is called."""
    return f"{pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def _flow_tags(flow_run: Mapping[str, str]) -> dict[str, str]:
    return {f"{FLOW_RUN}{name}": value for name, value in flow_run.items() if value}


def _code_tags(chain: Chain) -> dict[str, str]:
    modules = {step.module for step in chain}
    tags = {"gme.code": code_digest(sorted(modules)), **_git_tags()}
    return {**tags, **{f"gme.version.{name}": version for name in _VERSIONS if (version := _version(name))}}


def _place_tags() -> dict[str, str]:
    return {
        "gme.python": platform.python_version(),
        "gme.platform": platform.platform(),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "gme pipeline",
        "mlflow.source.type": "LOCAL",
    }


def _git_tags() -> dict[str, str]:
    """Commit and whether files differ from it; nothing outside a checkout."""
    home = Path(__file__).resolve().parents[1]
    commit, changes = _git(home, "rev-parse", "HEAD"), _git(home, "status", "--porcelain", "--untracked-files=no")
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "gme.git.dirty": str(bool(changes)).lower()}


def _git(home: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
