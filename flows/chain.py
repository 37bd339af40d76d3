"""The chain: which steps there are and what each takes from which. Knows no orchestrator.

`gme <verb>` runs one link, `flows.pipeline` runs them all; both go through `run_link`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from flows.config import PipelineConfig
from flows.judge import judge_of, keep
from gme_data.errors import FoundryError, did_you_mean
from gme_data.manifest import read_manifest, require
from gme_data.settings import Frozen
from gme_data.steps import Outcome, Step, execute, find_done, step_key


@dataclass(frozen=True, slots=True)
class Link:
    """One step in the chain.

    Attributes:
        step: Import path ``module:CONSTANT`` of the `Step`; imported when it is needed, since some bring torch along.
        section: The field of `PipelineConfig` that configures it.
        inputs: Input name of the step -> name of the link that makes it.
        verb: What a user types to run it alone.
        judged: Whether a champion judges in it, as a further input ``judge``; see `flows.judge`.
    """

    step: str
    section: str
    inputs: Mapping[str, str]
    verb: str
    judged: bool = False

    def load(self) -> Step:
        """Import the step."""
        module, _, constant = self.step.partition(":")
        step = getattr(importlib.import_module(module), constant)
        if not isinstance(step, Step):
            raise TypeError(f"{self.step} is not a Step")
        return step


CHAIN: Mapping[str, Link] = MappingProxyType(
    {
        "corpus": Link("atlas.step:CORPUS", "corpus", {}, "atlas build"),
        "synthesize": Link(
            "gme_synthesis.step:SYNTHESIZE", "synthesis", {"corpus": "corpus"}, "synthesize", judged=True
        ),
        "validate": Link(
            "gme_validation.step:VALIDATE", "validation", {"corpus": "corpus", "synthetic": "synthesize"}, "validate"
        ),
        "train-1": Link(
            "gme_training.step:TRAIN_STAGE_1",
            "stage_1",
            {"corpus": "corpus", "synthetic": "synthesize"},
            "train --stage 1",
        ),
        "mine": Link(
            "gme_training.step:MINE",
            "mining",
            {"corpus": "corpus", "synthetic": "synthesize", "model": "train-1"},
            "mine",
        ),
        "train-2": Link(
            "gme_training.step:TRAIN_STAGE_2",
            "stage_2",
            {"corpus": "corpus", "synthetic": "mine", "model": "train-1"},
            "train --stage 2",
        ),
        "baselines": Link("umrb.step:BASELINES", "baselines", {"corpus": "corpus"}, "baselines"),
        "evaluate": Link("umrb.step:EVALUATE", "evaluation", {"corpus": "corpus", "model": "train-2"}, "evaluate"),
        "report": Link(
            "umrb.step:REPORT",
            "report",
            {
                "corpus": "corpus",
                "synthetic": "synthesize",
                "baselines": "baselines",
                "evaluation": "evaluate",
                "stage1": "train-1",  # for its curves; before the model, so that they come first
                "model": "train-2",
            },
            "report",
        ),
    }
)


def link(name: str) -> Link:
    """A link by name.

    Raises:
        FoundryError: There is no such link.
    """
    if name not in CHAIN:
        raise FoundryError(f"No step named '{name}'.{did_you_mean(name, CHAIN)} Steps: {', '.join(CHAIN)}.")
    return CHAIN[name]


def section(config: PipelineConfig, name: str) -> Frozen:
    """The configuration of a link."""
    part: Frozen = getattr(config, CHAIN[name].section)
    return part


def run_link(name: str, config: PipelineConfig, made: Mapping[str, Outcome], workspace: Path) -> Outcome:
    """Run a link on the outcomes of the links it needs; `made` is keyed by link name and may hold more."""
    inputs = _inputs(name, config, made, workspace)
    if link(name).judged:
        keep(_run_key(name, config, made), inputs.get("judge"), workspace)
    return execute(link(name).load(), section(config, name), inputs, workspace)


def find_made(
    name: str, config: PipelineConfig, made: Mapping[str, Outcome], workspace: Path, *, new_run: bool = False
) -> Outcome | None:
    """The undamaged output of a link, if it was made from just this config, these inputs and this code."""
    return find_done(link(name).load(), step_key_of(name, config, made, workspace, new_run=new_run), workspace)


def step_key_of(
    name: str, config: PipelineConfig, made: Mapping[str, Outcome], workspace: Path, *, new_run: bool = False
) -> str:
    """The key that a link has with just this config, these inputs and this code."""
    inputs = _inputs(name, config, made, workspace, new_run=new_run)
    manifests = {source: outcome.manifest for source, outcome in inputs.items()}
    return step_key(link(name).load(), section(config, name), manifests)[0]


def _inputs(
    name: str, config: PipelineConfig, made: Mapping[str, Outcome], workspace: Path, *, new_run: bool = False
) -> dict[str, Outcome]:
    inputs = _made_inputs(name, made)
    judged = link(name).judged
    judge = judge_of(_run_key(name, config, made), config, workspace, anew=new_run) if judged else None
    return {**inputs, "judge": judge} if judge else inputs


def _made_inputs(name: str, made: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {input_name: made[source] for input_name, source in link(name).inputs.items()}


def _run_key(name: str, config: PipelineConfig, made: Mapping[str, Outcome]) -> str:
    """What a judged link would have as its key if nobody judged."""
    manifests = {source: outcome.manifest for source, outcome in _made_inputs(name, made).items()}
    return step_key(link(name).load(), section(config, name), manifests)[0]


def run_alone(name: str, config: PipelineConfig, workspace: Path) -> Outcome:
    """Run a link on what earlier runs left on disk.

    Raises:
        FoundryError: An input has not been made, or is damaged; names the command that makes it.
    """
    made = {source: published(source, workspace) for source in link(name).inputs.values()}
    return run_link(name, config, made, workspace)


def published(name: str, workspace: Path) -> Outcome:
    """The undamaged output of a link.

    Raises:
        FoundryError: It has not been made, or is damaged.
    """
    folder = workspace / link(name).load().output
    return Outcome(name, folder, require(folder, link(name).verb), reused=True)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do with a link: nothing (``done``) or run it (``run``), and why."""

    name: str
    state: Literal["done", "run"]
    reason: str
    seconds_last_time: float | None


def plan(config: PipelineConfig, workspace: Path, *, new_run: bool = False) -> list[Planned]:
    """What `flows.pipeline` would do now, without doing it; with `new_run`, as if `flows.judge.forget` came first."""
    done: dict[str, Outcome] = {}
    planned = []
    for name in CHAIN:
        planned.append(_plan_link(name, config, workspace, done, new_run=new_run))
    return planned


def _plan_link(
    name: str, config: PipelineConfig, workspace: Path, done: dict[str, Outcome], *, new_run: bool
) -> Planned:
    step = link(name).load()
    last = read_manifest(workspace / step.output)
    seconds = last.seconds if last else None
    waiting = [source for source in link(name).inputs.values() if source not in done]
    if waiting:
        return Planned(name, "run", f"after {', '.join(waiting)}", seconds)
    found = find_made(name, config, done, workspace, new_run=new_run)
    if found is None:
        return Planned(name, "run", "never made" if last is None else "config, input or code changed", seconds)
    done[name] = found
    return Planned(name, "done", "same key, files verified", seconds)
