"""The steps of training that the chain runs: train (stage 1 and 2) and mine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.examples import read_examples, write_examples
from gme_data.images import ImageStore
from gme_data.progress import tell, track
from gme_data.steps import Counts, StepContext
from gme_training.config import MiningConfig, TrainingConfig
from gme_training.curves import Curve, plot_curves, read_curve, write_curves
from gme_training.data.catalog import Catalog
from gme_training.data.example_index import ensure_index
from gme_training.devices import choose_device, count_gpus, explain_cpu, local_ranks
from gme_training.job import INDEX, TrainingJob
from gme_training.launch import run_ranks, started_by_launcher
from gme_training.preflight import require_trainable
from gme_training.stage_progress import ProgressSource, background_progress

EXAMPLES = "train"
"""The folder of the examples in the output of a step that makes examples."""
IMAGES = "images"
"""The folder of the pictures in the output of a step that makes pictures."""


def train(config: TrainingConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Trains one stage on all ranks and writes a model folder with its curves.

    Args:
        config: The stage.
        inputs: ``corpus`` (pictures), ``synthetic`` (examples; or those of mining) and, to continue from a model,
            ``model``; ``extra`` has further examples and pictures of its own.
        context: Where to write; the ``curves.svg`` of its log has speed and memory too.

    Raises:
        FoundryError: Data that does not fit the stage, a rank that failed, or a loss that is not finite.
    """
    job = TrainingJob(
        config=config,
        examples=tuple(inputs[name] / EXAMPLES for name in ("synthetic", "extra") if name in inputs),
        images=tuple(inputs[name] / IMAGES for name in ("corpus", "extra") if name in inputs),
        start=inputs.get("model"),
        staging=context.staging,
        log_dir=context.log_dir,
    )
    # Before any rank starts: an error that a rank finds costs the start of all of them.
    require_trainable(job)
    ranks, gpus = local_ranks() if started_by_launcher() else config.ranks, count_gpus()
    if reason := explain_cpu(ranks, gpus):
        tell("train", reason)
    path = context.staging / ".job.json"
    job.write(path)
    progress = ProgressSource("train", config.steps, job.events)
    if started_by_launcher():
        from gme_training.external_launcher import train_as_rank_zero

        with background_progress(progress):
            train_as_rank_zero(job, path)
    else:
        arguments = ["gme_training.launch", str(path)]
        device, log_dir = choose_device(ranks, gpus), context.log_dir
        run_ranks(arguments, ranks, device=device, scratch=context.staging, log_dir=log_dir, progress=progress)
    curve = _finished_curve(job)
    write_curves(context.staging, curve)
    # Speed and memory differ from run to run, so they are no part of the output: equal training, equal bytes.
    plot_curves(context.log_dir / "curves.svg", read_curve(job.history, speed=True))
    return {"steps": len(curve), "ranks": config.ranks, "final_loss": round(curve[-1]["loss"], 4)}


def train_on_present(config: TrainingConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Trains as `train` does, with only those sources of the mixtures that have examples; they get all the steps.

    Raises:
        FoundryError: As `train`, and if a phase is left without any share.
    """
    folders = [inputs[name] / EXAMPLES for name in ("synthetic", "extra") if name in inputs]
    present = {example.source for folder in folders for example in read_examples(folder)}
    return train(restrict(config, present), inputs, context)


def restrict(stage: TrainingConfig, sources: Collection[str]) -> TrainingConfig:
    """Returns the stage with only the shares of these sources.

    Raises:
        FoundryError: A phase is left without any.
    """
    phases = []
    for phase in stage.phases:
        mixture = tuple(share for share in phase.mixture if share.source in sources)
        if not mixture:
            raise FoundryError(f"Phase {phase.name!r} has no source left that has examples.")
        phases.append(phase.model_copy(update={"mixture": mixture}))
    return stage.model_copy(update={"phases": tuple(phases)})


def _finished_curve(job: TrainingJob) -> Curve:
    """Returns the curve of a finished stage, and tells the user of steps whose lines are damaged.

    Raises:
        FoundryError: Not one step can be read.
    """
    curve = read_curve(job.history)
    if not curve:
        raise FoundryError(
            f"{job.history} has no step that can be read, though the stage is trained.",
            hint="Run the same command again: it trains from the last checkpoint to the end, and records it.",
        )
    if missing := job.config.steps - len(curve):
        tell("train", f"{missing} of {job.config.steps} steps are missing in the curves: {job.history} is damaged")
    return curve


def mine(config: MiningConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes the examples with the hard negatives that the model of stage 1 finds, their scores, and a report.

    Args:
        config: Sources and number of negatives.
        inputs: ``corpus`` (pictures), ``synthetic`` (examples) and ``model``.
        context: Where to write; vectors are in a hidden folder until it is published, so a kill costs a shard of them.
    """
    from gme_embedder.embedder import Embedder
    from gme_embedder.modeling.precision import native_precision
    from gme_embedder.vectors.store import EmbeddingStore
    from gme_training.mining.hard_negatives import Miner, add_mined_negatives
    from gme_training.mining.report import write_report

    images = ImageStore([inputs["corpus"] / IMAGES])
    ensure_index([inputs["synthetic"] / EXAMPLES], context.staging / INDEX, images)
    catalog = Catalog(context.staging / INDEX)
    student = Embedder.load(inputs["model"], dtype=native_precision("bfloat16", "cpu"))
    miner = Miner(
        student,
        student.source.digest,
        images,
        EmbeddingStore(context.staging / ".vectors", chunk=config.shard),
        config,
    )
    sources = [source for source in config.sources if source in catalog.sources()]
    mined = {source: miner.mine(catalog, source) for source in track(sources, "mine", len(sources), "sources")}
    all_mined = [negatives for of_source in mined.values() for negatives in of_source]
    examples = list(add_mined_negatives(catalog, all_mined, config.num_negatives))
    write_report(context.staging, catalog, mined)
    write_examples(context.staging / EXAMPLES, examples)
    return {
        "examples": len(examples),
        "with_negatives": sum(bool(example.negatives) for example in examples),
        "negatives": sum(len(example.negatives) for example in examples),
    }
