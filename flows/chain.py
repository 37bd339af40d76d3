"""A chain: steps as one value, from which order, plan, keys and graph follow. Knows no orchestrator and no package.

Which chains there are stands in `flows.chains`. `gme <verb>` runs one step of one, `flows.pipeline` all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.console import announce
from flows.judge import choose_judge
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
        """Refuse what could not run.

        Raises:
            ValueError: A name or an output stands twice, an input is made by no earlier step, or a section is missing.
        """
        names: set[str] = set()
        for step in self.steps:
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
        """Names of the steps, in order."""
        return [step.name for step in self.steps]

    def __getitem__(self, name: str) -> Step:
        """A step by name.

        Raises:
            FoundryError: There is none of that name.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise FoundryError(f"No step named '{name}'.{did_you_mean(name, self.names)} Steps: {', '.join(self.names)}.")

    def section(self, step: Step) -> Frozen:
        """The configuration of a step; one that speaks of files outside of the workspace holds a digest of them.

        Raises:
            FoundryError: Such a file is missing, or of no kind that is read.
        """
        part = section_of(self.config, step.section)
        return part.sealed() if isinstance(part, Sealable) else part

    def last(self, role: Role) -> Step:
        """The last step whose output is a `role`: the model that is released, the evaluation that judged it.

        Raises:
            FoundryError: No step makes one.
        """
        for step in reversed(self.steps):
            if step.role == role:
                return step
        raise FoundryError(f"No step of this chain makes a {role}. Steps: {', '.join(self.names)}.")

    def uses(self, name: str) -> str:
        """What a dataset is used for: ``training``, ``evaluation`` or both, by the steps that take it."""
        roles = {step.role for step in self.steps if name in step.inputs.values()}
        uses = {"model": "training", "evaluation": "evaluation"}
        return ", ".join(use for role, use in uses.items() if role in roles)


def section_of(config: Frozen, section: str) -> Any:  # noqa: ANN401 - a section, or a mapping on the way to one
    """A section by its path, such as ``corpora.wiki.corpus``; None if there is none."""
    value: Any = config
    for name in section.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def plan_step(
    chain: Chain, step: Step, made: Mapping[str, Outcome], workspace: Path, *, new_run: bool = False
) -> PlannedStep:
    """A step with its config and the outcomes of its inputs; `made` is keyed by step name and may hold more.

    With `new_run` the present champion judges in it, whoever judged before.
    """
    inputs = {name: made[source] for name, source in step.inputs.items()}
    planned = PlannedStep(step, chain.section(step), inputs)
    return choose_judge(planned, chain.config, workspace, new_run=new_run) if step.judged else planned


def run_alone(chain: Chain, name: str, workspace: Path) -> Outcome:
    """Run a step on what earlier runs left on disk.

    Raises:
        FoundryError: An input has not been made, or is damaged; names the command that makes it.
    """
    step = chain[name]
    made = {source: published(chain[source], workspace) for source in step.inputs.values()}
    return execute(plan_step(chain, step, made, workspace), workspace)


def run_in_order(
    chain: Chain, workspace: Path, *, label: str = "", run: Callable[[PlannedStep, Path], Outcome] = execute
) -> dict[str, Outcome]:
    """Run what is not done yet, one step after the other; returns outcomes by step name.

    Args:
        chain: The steps.
        workspace: Where they work.
        label: Stands before the name of each step in what is printed.
        run: How a step runs: in this process, or as `flows.apart.run_apart`.

    Raises:
        FoundryError: What the failing step says; the steps before it stay done.
    """
    made: dict[str, Outcome] = {}
    for step in chain:
        with announce(f"{label} {step.name}".strip()) as line:
            planned = plan_step(chain, step, made, workspace)
            made[step.name] = find_done(planned, workspace) or run(planned, workspace)
            line.finish(made[step.name])
    return made


def published(step: Step, workspace: Path) -> Outcome:
    """The undamaged output of a step.

    Raises:
        FoundryError: It has not been made, or is damaged.
    """
    folder = workspace / step.output
    return Outcome(step.name, folder, require(folder, step.verb), reused=True)


@dataclass(frozen=True, slots=True)
class StepState:
    """What a run would do with a step: nothing (``done``), run it (``run``), or not begin (``blocked``), and why."""

    name: str
    state: Literal["done", "run", "blocked"]
    reason: str
    seconds_last_time: float | None
    inputs: tuple[str, ...]


def plan(chain: Chain, workspace: Path, *, new_run: bool = False) -> list[StepState]:
    """What a run of the chain would do now, without doing it; see `plan_step` for `new_run`."""
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
        # Files outside of the workspace are not there: a plan says so and goes on, a run asks for them first. Suites
        # can be fetched meanwhile, what a corpus is made of somebody must bring.
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
