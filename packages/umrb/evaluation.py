"""The step `evaluate`: a trained model on every task of the suites, and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gme_data.scores import overall
from gme_data.steps import StepContext
from gme_data.tasks import TaskCard
from umrb.config import EvaluationConfig
from umrb.data.controls import shuffle_pictures
from umrb.data.loading import LoadedTask
from umrb.data.selection import SuiteTask
from umrb.data.sides import View, fused_text, picture_only
from umrb.scoring.evaluator import MODEL, Evaluator
from umrb.systems.base import DenseSystem, Encoder, encode_with

INPUTS: dict[str, View] = {"text only": fused_text, "picture only": picture_only}
"""What fused items are reduced to, to see which part of them a score rests on."""


def run_evaluation(config: EvaluationConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score the model of ``inputs["model"]`` on the tasks of ``inputs["corpus"]`` and of the other suites.

    Raises:
        FoundryError: A task can't be scored as it is, or the model is no model.
    """
    judging = Evaluator(config, inputs["corpus"], context.staging)
    encoder = _trained(config, inputs["model"])
    system = DenseSystem(MODEL, encoder, judging.store)
    scores = judging.score(system, encoder.digest, examples=True)

    def with_exchanged_pictures(unit: SuiteTask) -> LoadedTask | None:
        loaded = judging.load(unit)
        if loaded.task.card.task_type not in config.shuffled_control:
            return None
        shuffled = shuffle_pictures(loaded.task, config.scoring.seed)
        return replace(loaded, task=shuffled) if shuffled else None

    control = DenseSystem(f"{MODEL}, pictures exchanged", encoder, judging.store)
    controls = judging.score(control, encoder.digest, load=with_exchanged_pictures).tasks
    reduced = [
        judging.score(DenseSystem(f"{MODEL}, {label}", encoder.seeing(view), judging.store, _fused), encoder.digest)
        for label, view in INPUTS.items()
    ]
    judging.write([scores.model_copy(update={"controls": controls}), *(system for system in reduced if system.tasks)])
    return {
        "tasks": len(scores.tasks),
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
