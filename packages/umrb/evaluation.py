"""The step `evaluate`: scores a trained model on every task of the suites, and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gme_data.scores import overall
from gme_data.steps import StepContext
from umrb.config import EvaluationConfig
from umrb.data.controls import shuffle_pictures
from umrb.data.loading import LoadedTask
from umrb.data.selection import SuiteTask
from umrb.data.sides import View, fused_text, picture_only
from umrb.scoring.evaluator import MODEL, Evaluator
from umrb.systems.base import DenseSystem, Encoder, encode_with

REDUCED_VIEWS: dict[str, View] = {"text only": fused_text, "picture only": picture_only}
"""Fused items are also scored by each of their parts alone, to see which part a score rests on."""


def run_evaluation(config: EvaluationConfig, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """Score the model of ``inputs["model"]`` on the tasks of ``inputs["corpus"]`` and of the other suites.

    Raises:
        FoundryError: A task can't be scored as it is, or the model folder holds no model.
    """
    evaluator = Evaluator(config, inputs["corpus"], context.staging)
    encoder = _load_encoder(config, inputs["model"])
    scores = evaluator.score(DenseSystem(MODEL, encoder, evaluator.store), encoder.digest, examples=True)

    def with_exchanged_pictures(suite_task: SuiteTask) -> LoadedTask | None:
        loaded = evaluator.load(suite_task)
        if loaded.task.card.task_type not in config.shuffled_control:
            return None
        shuffled = shuffle_pictures(loaded.task, config.scoring.seed)
        return replace(loaded, task=shuffled) if shuffled else None

    control = DenseSystem(f"{MODEL}, pictures exchanged", encoder, evaluator.store)
    controls = evaluator.score(control, encoder.digest, load=with_exchanged_pictures).tasks
    reduced = []
    for label, view in REDUCED_VIEWS.items():
        encoder_of_part = encoder.seeing(view)
        name = f"{MODEL}, {label}"
        system = DenseSystem(name, encoder_of_part, evaluator.store, only=lambda card: "IT" in card.task_type)
        reduced.append(evaluator.score(system, encoder.digest))
    # Without fused items among the tasks there is nothing to reduce.
    systems = [scores.model_copy(update={"controls": controls}), *(system for system in reduced if system.tasks)]
    evaluator.write(systems)
    return {
        "tasks": len(scores.tasks),
        "queries": sum(task.queries for task in scores.tasks),
        "overall": overall(scores.tasks),
    }


def _load_encoder(config: EvaluationConfig, model: Path) -> Encoder:
    from gme_embedder.embedder import Embedder
    from gme_embedder.modeling.precision import native_precision

    dtype = native_precision(config.dtype, config.device)
    embedder = Embedder.load(model, device=config.device, dtype=dtype)
    # The precision changes the vectors, so it is part of what they are stored under.
    return Encoder(embedder.source.digest + dtype, encode_with(embedder, config.batch_tokens))
