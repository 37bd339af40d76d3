"""The step `evaluate`: a trained model on every task, and its controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gme_data.items import Item
from gme_data.journal import Journal
from gme_data.manifest import require
from gme_data.steps import StepContext
from gme_embedder.store import EmbeddingStore
from umrb.config import EvaluationConfig
from umrb.controls import shuffle_pictures
from umrb.results import SCORES, TaskScore, overall, write_scores
from umrb.runner import VECTORS, Runner
from umrb.systems import DenseSystem, Encoder, Vectors, as_given
from umrb.tasks import NumberedTask, load_tasks, open_images


def run_evaluation(config: EvaluationConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score the model of ``inputs["model"]`` on the tasks of ``inputs["corpus"]``."""
    folder = inputs["corpus"] / "tasks" / config.scoring.split
    tasks = load_tasks(folder, config.scoring.tasks)
    system = DenseSystem("model", _trained(config, inputs["model"], folder), EmbeddingStore(context.staging / VECTORS))
    runner = Runner(context.staging, Journal(context.staging, "scores"), config.scoring)
    scores = runner.score(system, tasks)
    controls = tuple(_controls(config, runner, system, tasks))
    write_scores(context.staging / SCORES, [scores.model_copy(update={"controls": controls})])
    return {
        "tasks": len(tasks),
        "queries": sum(task.queries for task in scores.tasks),
        "overall": overall(scores.tasks),
    }


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
