"""A chain: steps as one value, from which order, plan, keys and graph follow. Knows no orchestrator and no package.

`flows.chains` defines the chains. `gme <verb>` runs one step of a chain, `flows.pipeline` all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.console import announce_step
from flows.picture_scorer import pin_picture_scorer
from gme_data.errors import FoundryError, did_you_mean
from gme_data.manifest import read_manifest, require
from gme_data.settings import Frozen, Sealable
from gme_data.steps import Outcome, PlannedStep, Role, Step, execute, find_done


@dataclass(frozen=True)
class Chain:
    """Steps in an order in which they can run, and the configuration whose sections they read.

    Attributes:
        config: The configuration.
        steps: Each after those whose outputs it takes.
    """

    config: Frozen
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Checks that the chain can run.

        Raises:
            ValueError: Two steps have one name or output, no earlier step makes an input, or a section is missing.
        """
        names: set[str] = set()
        for step in self.steps:
            # Checked against earlier names alone, so a chain has no cycle.
            if missing := {*step.inputs.values(), *step.after} - names:
                raise ValueError(f"{step.name} needs {', '.join(sorted(missing))}, which no earlier step makes")
            if section_of(self.config, step.section) is None:
                raise ValueError(f"{step.name}: the configuration has no section '{step.section}'")
            names.add(step.name)
        if len(names) < len(self.steps) or len({step.output for step in self.steps}) < len(self.steps):
            raise ValueError("two steps have one name or one output")

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def names(self) -> list[str]:
        """Returns the names of the steps, in order."""
        return [step.name for step in self.steps]

    def __getitem__(self, name: str) -> Step:
        """Returns a step by name.

        Raises:
            FoundryError: There is no step of that name.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise FoundryError(f"No step named '{name}'.{did_you_mean(name, self.names)} Steps: {', '.join(self.names)}.")

    def section(self, step: Step) -> Frozen:
        """Returns the configuration of a step, with a digest of the files outside of the workspace that it names.

        Raises:
            FoundryError: Such a file is missing, or of an unknown kind.
        """
        part = section_of(self.config, step.section)
        return part.sealed() if isinstance(part, Sealable) else part

    def last(self, role: Role) -> Step:
        """Returns the last step whose output is a `role`: the model that is released, or its evaluation.

        Raises:
            FoundryError: No step makes such an output.
        """
        for step in reversed(self.steps):
            if step.role == role:
                return step
        raise FoundryError(f"No step of this chain makes a {role}. Steps: {', '.join(self.names)}.")

    def uses(self, name: str) -> str:
        """Returns the uses of a dataset, ``training``, ``evaluation`` or both, by the steps that take it."""
        roles = {step.role for step in self.steps if name in step.inputs.values()}
        uses = {"model": "training", "evaluation": "evaluation"}
        return ", ".join(use for role, use in uses.items() if role in roles)


def section_of(config: Frozen, section: str) -> Any:  # noqa: ANN401 - a section, or a mapping on the way to one
    """Returns a section by its path, such as ``corpora.wiki.corpus``; None if there is none."""
    value: Any = config
    for name in section.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def plan_step(
    chain: Chain, step: Step, outcomes: Mapping[str, Outcome], workspace: Path, *, new_run: bool = False
) -> PlannedStep:
    """Returns a step with its configuration and the outcomes of its inputs.

    Args:
        chain: The chain.
        step: A step of the chain.
        outcomes: Outcomes by name of the step; those of other steps are ignored.
        workspace: The workspace.
        new_run: Whether the present champion scores pictures in it, whatever its run began with.
    """
    inputs = {name: outcomes[source] for name, source in step.inputs.items()}
    planned = PlannedStep(step, chain.section(step), inputs)
    return pin_picture_scorer(planned, chain.config, workspace, new_run=new_run) if step.uses_champion else planned


def run_alone(chain: Chain, name: str, workspace: Path) -> Outcome:
    """Runs a step on the outputs that earlier runs left on disk.

    Raises:
        FoundryError: An input has not been made, or is damaged; the message names the command that makes it.
    """
    step = chain[name]
    outcomes = {source: published_outcome(chain[source], workspace) for source in step.inputs.values()}
    return execute(plan_step(chain, step, outcomes, workspace), workspace)


def run_in_order(
    chain: Chain, workspace: Path, *, label: str = "", run: Callable[[PlannedStep, Path], Outcome] = execute
) -> dict[str, Outcome]:
    """Runs the steps that are not done yet, one after the other, and returns outcomes by name of the step.

    Args:
        chain: The steps.
        workspace: The workspace.
        label: Printed before the name of each step.
        run: Runs a step: in this process, or with `flows.step_process.run_in_process` in another.

    Raises:
        FoundryError: A step raises it; the steps before it stay done.
    """
    outcomes: dict[str, Outcome] = {}
    for step in chain:
        with announce_step(f"{label} {step.name}".strip()) as line:
            planned = plan_step(chain, step, outcomes, workspace)
            outcomes[step.name] = find_done(planned, workspace) or run(planned, workspace)
            line.finish(outcomes[step.name])
    return outcomes


def published_outcome(step: Step, workspace: Path) -> Outcome:
    """Returns the outcome of a step that earlier runs left on disk, after checking its files.

    Raises:
        FoundryError: It has not been made, or is damaged.
    """
    folder = workspace / step.output
    return Outcome(step.name, folder, require(folder, step.verb), reused=True)


@dataclass(frozen=True, slots=True)
class StepState:
    """What a run would do with a step: nothing (``done``), run it, or fail before it (``blocked``), and why."""

    name: str
    state: Literal["done", "run", "blocked"]
    reason: str
    seconds_last_time: float | None
    inputs: tuple[str, ...]


def plan(chain: Chain, workspace: Path, *, new_run: bool = False) -> list[StepState]:
    """Returns what a run of the chain would do now; see `plan_step` for `new_run`."""
    done: dict[str, Outcome] = {}
    return [_state(chain, step, workspace, done, new_run=new_run) for step in chain]


def _state(chain: Chain, step: Step, workspace: Path, done: dict[str, Outcome], *, new_run: bool) -> StepState:
    last = read_manifest(workspace / step.output)
    seconds = last.seconds if last else None
    sources = tuple(dict.fromkeys(step.inputs.values()))
    if waiting := [source for source in sources if source not in done]:
        return StepState(step.name, "run", f"after {', '.join(waiting)}", seconds, sources)
    try:
        planned = plan_step(chain, step, done, workspace, new_run=new_run)
    except FoundryError as error:
        # A file outside of the workspace is missing. A plan reports it and goes on; a run is refused by
        # `flows.preflight`. Suites can still be fetched, but the data of a corpus are the user's to bring.
        hint = f" {error.hint}" if error.hint else ""
        state: Literal["run", "blocked"] = "run" if step.role in ("baselines", "evaluation") else "blocked"
        return StepState(step.name, state, f"{error}{hint}", seconds, sources)
    outcome = find_done(planned, workspace)
    if outcome is None:
        return StepState(
            step.name, "run", "never made" if last is None else "config, input or code changed", seconds, sources
        )
    done[step.name] = outcome
    return StepState(step.name, "done", "same key, files verified", seconds, sources)
