"""The tables and sentences of a report: the model beside baselines, by task and by task type. Knows no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gme_data.scores import (
    Control,
    ReportScores,
    ReportTask,
    SystemScores,
    TaskScore,
    by_task_type,
    overall,
    type_means,
)
from umrb.report.environment import metric_label
from umrb.report.facts import Facts
from umrb.report.gap import by_modality, gaps
from umrb.report.paired import difference_interval
from umrb.report.suite_table import SuiteTable


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task.

    Attributes:
        score: The score of the model.
        baselines: The headline value of each baseline; None where it does not apply.
        difference: 95 % interval of model minus best baseline, by paired queries; None without a baseline.
    """

    score: TaskScore
    baselines: dict[str, float | None]
    difference: tuple[float, float] | None

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """Name and value of the strongest baseline; None if none applies."""
        return _best(self.baselines)

    @property
    def lost(self) -> bool:
        """Whether a baseline scores higher than the model."""
        best = self.best_baseline
        return best is not None and best[1] > self.score.value

    @property
    def even(self) -> bool:
        """Whether the interval of the difference between model and best baseline contains 0."""
        return self.difference is not None and self.difference[0] <= 0 <= self.difference[1]


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One task type, with means over its tasks."""

    task_type: str
    metric: str
    tasks: int
    value: float
    baselines: dict[str, float | None]

    @property
    def winner(self) -> str:
        """The best baseline's name, or ``model`` (ties go to the model)."""
        best = _best(self.baselines)
        return best[0] if best and best[1] > self.value else "model"


def task_rows(facts: Facts) -> list[TaskRow]:
    """Make a row for every task of the model, in order."""
    return [_task_row(facts, score) for score in facts.model.tasks]


def _task_row(facts: Facts, score: TaskScore) -> TaskRow:
    baselines = {system.system: _value(system, score.name) for system in facts.baselines}
    best = _best(baselines)
    if best is None:
        return TaskRow(score, baselines, None)
    # Per-query values make the comparison paired, which the two intervals alone don't allow.
    of_model = facts.query_file("evaluation", facts.model.system, score.name)
    of_baseline = facts.query_file("baselines", best[0], score.name)
    return TaskRow(score, baselines, difference_interval(of_model, of_baseline))


def _best(values: dict[str, float | None]) -> tuple[str, float] | None:
    """Name and value of the highest, the first of equal ones; None if all values are None."""
    defined = [(name, value) for name, value in values.items() if value is not None]
    return max(defined, key=lambda pair: pair[1]) if defined else None


def type_rows(facts: Facts) -> list[TypeRow]:
    """Make a row for every task type, in the order of the paper."""
    means = type_means(facts.model.tasks)
    others = {system.system: type_means(system.tasks) for system in facts.baselines}
    return [
        TypeRow(
            task_type,
            group[0].metric,
            len(group),
            means[task_type],
            {name: m.get(task_type) for name, m in others.items()},
        )
        for task_type, group in by_task_type(facts.model.tasks).items()
    ]


@dataclass(frozen=True, slots=True)
class InputRow:
    """One task with fused items: scores of the model on whole items and on their parts.

    Attributes:
        unreduced: Headline value on whole items.
        reduced: Headline values by the part that remains, such as ``text only``.
    """

    name: str
    task_type: str
    unreduced: float
    reduced: dict[str, float | None]


def input_rows(facts: Facts) -> list[InputRow]:
    """Make a row for every task that has fused items."""
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
    """Write the tables of task types and of suites as Markdown, for a pull request or a model card."""
    tables = [_types_table(facts, types)] if facts.baselines else []
    return "\n\n".join([*tables, *(_suite_text(facts, table) for table in facts.suites)]) + "\n"


def _types_table(facts: Facts, types: Sequence[TypeRow]) -> str:
    systems = [system.system for system in facts.baselines]
    head = ["type", "tasks", "model", *systems]
    lines = [
        [
            row.task_type.replace("->", "→"),
            str(row.tasks),
            f"{row.value:.3f}",
            *("·" if row.baselines[name] is None else f"{row.baselines[name]:.3f}" for name in systems),
        ]
        for row in types
    ]
    total = ["all", str(len(facts.model.tasks)), f"**{overall(facts.model.tasks):.3f}**", *("" for _ in systems)]
    return _table(head, [*lines, total])


def _suite_text(facts: Facts, table: SuiteTable) -> str:
    """The table of a published suite, with the paper's rows above the model's, and that of its datasets."""
    expected = table.summary.expected
    head = ["model", *(task_type.replace("->", "→") for task_type in table.task_types), f"all {expected}"]
    rows = [
        [
            f"{row.model} (published)",
            *(f"{row.types[task_type]:.2f}" for task_type in table.task_types),
            f"{row.average:.2f}",
        ]
        for row in table.published
    ]
    means = [table.summary.types[task_type] for task_type in table.task_types]
    cells = [
        _percent(mean.mean) + (f" ({mean.scored}/{mean.of})" if mean.scored < mean.of and mean.scored else "")
        for mean in means
    ]
    rows.append([f"**{table.model}**", *cells, _percent(table.summary.total)])
    datasets = [
        [
            row.dataset.name,
            row.dataset.task_type.replace("->", "→"),
            metric_label(row.dataset.metric),
            _percent(row.value),
            f"{100 * row.interval[0]:.2f} to {100 * row.interval[1]:.2f}" if row.interval else "",
            ", ".join(f"{model} {value:.2f}" for model, value in row.dataset.published.items()),
            "; ".join(row.defects),
        ]
        for row in table.rows
    ]
    some = f"{len(table.summary.datasets)} of {expected} datasets are scored"
    note = [] if table.summary.complete else [f"{some}: the mean does not stand beside a published one."]
    labels = ["dataset", "type", "metric", "score", "95 %", "published", "defects of the data"]
    title = [f"# {table.suite}: {table.model}", f"Revision `{facts.revision}`. Percent."]
    return "\n\n".join([*title, *note, _table(head, rows), _table(labels, datasets)])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _percent(value: float | None) -> str:
    return "·" if value is None else f"{100 * value:.2f}"


def verdict(rows: Sequence[TaskRow]) -> tuple[list[str], list[str]]:
    """Write sentences about where the model wins, and a line for each task that a baseline wins."""
    won, lost = [row for row in rows if not row.lost], [row for row in rows if row.lost]
    sentences = [f"The model scores at least as high as every baseline on {len(won)} of {len(rows)} tasks{_even(won)}."]
    if lost:
        sentences.append(f"A baseline scores higher on {len(lost)}{_even(lost)}:")
    lines = []
    for row in lost:
        name, value = row.best_baseline or ("", 0.0)
        aside = " (within the error)" if row.even else ""
        lines.append(f"{name} on {row.score.name}, {value:.3f} against {row.score.value:.3f}{aside}")
    return sentences, lines


def _even(rows: Sequence[TaskRow]) -> str:
    """An aside on how many of `rows` are within the sampling error of the queries."""
    even = sum(row.even for row in rows)
    return f" ({even} of them within the error of these queries)" if even else ""


def control_sentences(facts: Facts) -> list[str]:
    """Write R@10 of each controlled task with its own pictures and with the pictures of other entities."""
    chance = next((system.by_name for system in facts.baselines if system.system == "random"), {})
    sentences = []
    for control in facts.model.controls:
        before = facts.model.by_name[control.name].scores["hit_rate_at_10"]
        after = control.scores["hit_rate_at_10"]
        at_random = chance.get(control.name)
        aside = f", chance {at_random.scores['hit_rate_at_10']:.3f}" if at_random else ""
        sentences.append(f"{control.name}: R@10 {before:.3f} with its own pictures, {after:.3f} with another's{aside}.")
    return sentences


def report_scores(facts: Facts, rows: Sequence[TaskRow]) -> ReportScores:
    """Return the scores of the page for programs."""
    return ReportScores(
        model=facts.revision if facts.manifests else facts.label,
        revision="" if facts.manifests else facts.revision,
        split=facts.split,
        tasks=tuple(
            ReportTask(
                **row.score.model_dump(),
                baselines={name: value for name, value in row.baselines.items() if value is not None},
                difference=row.difference,
            )
            for row in rows
        ),
        types=type_means(facts.model.tasks),
        overall=overall(facts.model.tasks),
        controls=tuple(
            Control(name=control.name, control="shuffled-pictures", scores=control.scores)
            for control in facts.model.controls
        ),
        suites=tuple(table.scores for table in facts.suites),
        modality_gap={"-".join(gap.pair): gap.distance for gap in gaps(by_modality(facts.samples))},
    )


def _value(system: SystemScores, task: str) -> float | None:
    score = system.by_name.get(task)
    return score.value if score else None
