"""Model beside baselines: per task, per task type, and in plain sentences. Knows no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umrb.report.facts import Facts
from umrb.report.paired import difference_interval
from umrb.results import SystemScores, TaskScore, by_task_type, overall, type_means


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task.

    Attributes:
        score: The model's.
        baselines: The headline value of each baseline; None where it does not apply.
        difference: 95 % interval of model minus best baseline, by paired queries.
    """

    score: TaskScore
    baselines: dict[str, float | None]
    difference: tuple[float, float]

    @property
    def best_baseline(self) -> tuple[str, float]:
        """Name and value of the strongest baseline."""
        return _best(self.baselines)

    @property
    def lost(self) -> bool:
        """Whether a baseline scores higher than the model."""
        return self.best_baseline[1] > self.score.value

    @property
    def even(self) -> bool:
        """Whether model and best baseline cannot be told apart on these queries."""
        return self.difference[0] <= 0 <= self.difference[1]


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One task type: means over its tasks."""

    task_type: str
    metric: str
    tasks: int
    value: float
    baselines: dict[str, float | None]

    @property
    def winner(self) -> str:
        """The best baseline's name, or ``model`` (ties go to the model)."""
        name, value = _best(self.baselines)
        return name if value > self.value else "model"


def task_rows(facts: Facts) -> list[TaskRow]:
    """A row for every task of the model, in order."""
    return [_task_row(facts, score) for score in facts.model.tasks]


def _task_row(facts: Facts, score: TaskScore) -> TaskRow:
    baselines = {system.system: _value(system, score.name) for system in facts.baselines}
    mine = facts.query_file("evaluation", facts.model.system, score.name)
    theirs = facts.query_file("baselines", _best(baselines)[0], score.name)
    return TaskRow(score, baselines, difference_interval(mine, theirs))


def _best(values: dict[str, float | None]) -> tuple[str, float]:
    """Name and value of the highest, the first of equals. Chance applies to every task, so there always is one."""
    return max(((name, value) for name, value in values.items() if value is not None), key=lambda pair: pair[1])


def type_rows(facts: Facts) -> list[TypeRow]:
    """A row for every task type, in the order of the paper."""
    means = type_means(facts.model.tasks)
    others = {system.system: type_means(system.tasks) for system in facts.baselines}
    return [
        TypeRow(kind, group[0].metric, len(group), means[kind], {name: m.get(kind) for name, m in others.items()})
        for kind, group in by_task_type(facts.model.tasks).items()
    ]


@dataclass(frozen=True, slots=True)
class InputRow:
    """One task with fused items: the model on whole items, and given less of the fused ones.

    Attributes:
        whole: Headline value on whole items.
        reduced: The same by what is left, such as ``text only``.
    """

    name: str
    task_type: str
    whole: float
    reduced: dict[str, float | None]


def input_rows(facts: Facts) -> list[InputRow]:
    """A row for every task that has fused items."""
    return [
        InputRow(
            task.name,
            task.task_type,
            task.value,
            {system.system.partition(", ")[2]: _value(system, task.name) for system in facts.reduced},
        )
        for task in facts.model.tasks
        if "IT" in task.task_type
    ]


def markdown(facts: Facts, types: Sequence[TypeRow]) -> str:
    """The table of task types, for a pull request or a model card."""
    systems = [system.system for system in facts.baselines]
    lines = [["type", "tasks", "model", *systems], ["---"] * (3 + len(systems))]
    lines += [
        [
            row.task_type.replace("->", "→"),
            str(row.tasks),
            f"{row.value:.3f}",
            *("·" if row.baselines[name] is None else f"{row.baselines[name]:.3f}" for name in systems),
        ]
        for row in types
    ]
    total = ["all", str(len(facts.model.tasks)), f"**{overall(facts.model.tasks):.3f}**", *("" for _ in systems)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, total]) + "\n"


def verdict(rows: Sequence[TaskRow]) -> tuple[list[str], list[str]]:
    """Where the model wins and where a baseline does: the sentences, and a line for each task where one does."""
    won, lost = [row for row in rows if not row.lost], [row for row in rows if row.lost]
    sentences = [f"The model scores at least as high as every baseline on {len(won)} of {len(rows)} tasks{_even(won)}."]
    if lost:
        sentences.append(f"A baseline scores higher on {len(lost)}{_even(lost)}:")
    return sentences, [f"{row.best_baseline[0]} on {row.score.name}, {_against(row)}" for row in lost]


def _even(rows: Sequence[TaskRow]) -> str:
    """An aside on how many of `rows` are within the error of the queries."""
    even = sum(row.even for row in rows)
    return f" ({even} of them within the error of these queries)" if even else ""


def control_sentences(facts: Facts) -> list[str]:
    """What is left of each controlled task's R@10 when the pictures of its queries are exchanged."""
    chance = next((system.by_name for system in facts.baselines if system.system == "random"), {})
    sentences = []
    for control in facts.model.controls:
        before = facts.model.by_name[control.name].scores["hit_rate_at_10"]
        after = control.scores["hit_rate_at_10"]
        at_random = chance.get(control.name)
        aside = f", chance {at_random.scores['hit_rate_at_10']:.3f}" if at_random else ""
        sentences.append(f"{control.name}: R@10 {before:.3f} with its own pictures, {after:.3f} with another's{aside}.")
    return sentences


def scores_json(facts: Facts, rows: Sequence[TaskRow]) -> dict[str, Any]:
    """The machine-readable twin of the page."""
    return {
        "model": facts.model_digest,
        "split": facts.split,
        "tasks": [_task_json(row) for row in rows],
        "types": type_means(facts.model.tasks),
        "overall": overall(facts.model.tasks),
        "controls": [
            {"name": control.name, "control": "shuffled-pictures", "scores": control.scores}
            for control in facts.model.controls
        ],
    }


def _task_json(row: TaskRow) -> dict[str, Any]:
    known = {name: value for name, value in row.baselines.items() if value is not None}
    return {**row.score.model_dump(mode="json"), "baselines": known, "difference": row.difference}


def _value(system: SystemScores, task: str) -> float | None:
    score = system.by_name.get(task)
    return score.value if score else None


def _against(row: TaskRow) -> str:
    aside = " (within the error)" if row.even else ""
    return f"{row.best_baseline[1]:.3f} against {row.score.value:.3f}{aside}"
