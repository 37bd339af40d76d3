"""The step `evaluate`: a trained model on every task, and its controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gme_data.journal import Journal
from gme_data.steps import StepContext
from gme_data.tasks import TaskCard
from umrb.cards import EXAMPLES
from umrb.config import EvaluationConfig
from umrb.controls import shuffle_pictures
from umrb.examples import write_sample
from umrb.results import SCORES, TaskScore, overall, write_scores
from umrb.runner import VECTORS, Runner
from umrb.sides import View, fused_text, picture_only
from umrb.systems import DenseSystem, Encoder, encode_with
from umrb.tasks import NumberedTask, load_tasks
from umrb.vectors import VectorStore

INPUTS: dict[str, View] = {"text only": fused_text, "picture only": picture_only}
"""What fused items are reduced to, to see which part of them a score rests on."""


def run_evaluation(config: EvaluationConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score the model of ``inputs["model"]`` on the tasks of ``inputs["corpus"]``."""
    folder = inputs["corpus"] / "tasks" / config.scoring.split
    tasks = load_tasks(folder, config.scoring.tasks)
    store = VectorStore(context.staging / VECTORS)
    encoder = _trained(config, inputs["model"])
    system = DenseSystem("model", encoder, store)
    runner = Runner(context.staging, Journal(context.staging, "scores"), config.scoring)
    scores = runner.score(system, tasks)
    for task in tasks:
        write_sample(context.staging / EXAMPLES, system, task, config.scoring.seed)
    controls = tuple(_controls(config, runner, system, tasks))
    reduced = [
        runner.score(DenseSystem(f"model, {label}", encoder.seeing(view), store, _fused), tasks)
        for label, view in INPUTS.items()
        if any(_fused(task.card) for task in tasks)
    ]
    write_scores(context.staging / SCORES, [scores.model_copy(update={"controls": controls}), *reduced])
    return {
        "tasks": len(tasks),
        "queries": sum(task.queries for task in scores.tasks),
        "overall": overall(scores.tasks),
    }


def _trained(config: EvaluationConfig, model: Path) -> Encoder:
    from gme_embedder.embedder import Embedder
    from gme_embedder.precision import native_precision

    dtype = native_precision(config.dtype, config.device)
    embedder = Embedder.load(model, device=config.device, dtype=dtype)
    return Encoder(embedder.source.digest + dtype, encode_with(embedder, config.batch_tokens))


def _fused(card: TaskCard) -> bool:
    return "IT" in card.task_type


def _controls(
    config: EvaluationConfig, runner: Runner, system: DenseSystem, tasks: Sequence[NumberedTask]
) -> Iterator[TaskScore]:
    for task in tasks:
        if task.card.task_type not in config.shuffled_control:
            continue
        shuffled = shuffle_pictures(task, config.scoring.seed)
        if shuffled is not None:
            yield runner.score_task(system, shuffled, variant="shuffled-pictures")
