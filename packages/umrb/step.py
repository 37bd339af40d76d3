"""The three steps of this package, as the chain runs them: `BASELINES`, `EVALUATE`, `REPORT`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gme_data.items import Item
from gme_data.journal import Journal
from gme_data.manifest import require
from gme_data.steps import Step, StepContext
from gme_embedder.store import EmbeddingStore
from umrb.baselines import build_baselines
from umrb.config import BaselineConfig, EvaluationConfig, ReportConfig
from umrb.controls import shuffle_pictures
from umrb.results import TaskScore, overall, write_scores
from umrb.runner import Runner
from umrb.systems import DenseSystem, Encoder, Vectors, as_given
from umrb.tasks import NumberedTask, load_tasks, open_images

SCORES = "scores.json"
_VECTORS = ".vectors"  # hidden: kept while the step is at work, gone when it is published


def run_evaluation(config: EvaluationConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score the model of ``inputs["model"]`` on the tasks of ``inputs["corpus"]``."""
    folder = inputs["corpus"] / "tasks" / config.scoring.split
    tasks = load_tasks(folder, config.scoring.tasks)
    system = DenseSystem("model", _trained(config, inputs["model"], folder), EmbeddingStore(context.staging / _VECTORS))
    runner = Runner(context.staging, Journal(context.staging, "scores"), config.scoring)
    scores = runner.score(system, tasks)
    controls = tuple(_controls(config, runner, system, tasks))
    write_scores(context.staging / SCORES, [scores.model_copy(update={"controls": controls})])
    return {
        "tasks": len(tasks),
        "queries": sum(task.queries for task in scores.tasks),
        "overall": overall(scores.tasks),
    }


def run_baselines(config: BaselineConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score every baseline on the tasks of ``inputs["corpus"]`` that it applies to."""
    folder = inputs["corpus"] / "tasks" / config.scoring.split
    tasks = load_tasks(folder, config.scoring.tasks)
    runner = Runner(context.staging, Journal(context.staging, "scores"), config.scoring)
    makers = build_baselines(config, open_images(folder), EmbeddingStore(context.staging / _VECTORS))
    systems = [runner.score(make(), tasks) for make in makers]
    write_scores(context.staging / SCORES, systems)
    return {"systems": len(systems), "scores": sum(len(system.tasks) for system in systems)}


def run_report(config: ReportConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Render what the other steps wrote; see `umrb.report.build`."""
    from umrb.report.build import build_report

    return build_report(config, inputs, context.staging)


def _trained(config: EvaluationConfig, model: Path, tasks: Path) -> Encoder:
    from gme_embedder.embedder import Embedder

    embedder = Embedder.load(model, device=config.device, dtype=config.dtype)
    images = open_images(tasks)

    def encode(items: Sequence[Item], instruction: str | None) -> Vectors:
        return embedder.encode(items, instruction, images, batch_tokens=config.batch_tokens)

    return Encoder(require(model, "train").content + config.dtype, frozenset(), as_given, encode)


def _controls(
    config: EvaluationConfig, runner: Runner, system: DenseSystem, tasks: Sequence[NumberedTask]
) -> Iterator[TaskScore]:
    for task in tasks:
        if task.card.task_type not in config.shuffled_control:
            continue
        shuffled = shuffle_pictures(task, config.scoring.seed)
        if shuffled is not None:
            yield runner.score_task(system, shuffled, variant="shuffled-pictures")


BASELINES = Step("baselines", "runs/baselines", run_baselines)
EVALUATE = Step("evaluate", "runs/evaluation", run_evaluation)
REPORT = Step("report", "runs/report", run_report)
