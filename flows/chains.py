"""Every chain: the names of its steps, the function that each runs, its inputs and its output.

Functions are named by import path, so that a plan imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flows.chain import Chain
from flows.config import (
    AnyPart,
    AtlasPart,
    ExamplesPart,
    FilesPipeline,
    JoinedPipeline,
    PairsPipeline,
    PipelineConfig,
    PublicPipeline,
)
from gme_data.steps import Step
from gme_synthesis.joining import tasks_input

ATLAS = Step("corpus", "atlas.step:run", "data/atlas", section="corpus", role="dataset", verb="atlas build")
SYNTHESIZE = Step(
    "synthesize",
    "gme_synthesis.corpus.run:synthesize",
    "data/synthetic",
    section="synthesis",
    inputs={"corpus": "corpus"},
    role="dataset",
    verb="synthesize",
    uses_champion=True,
)
IMPORT = Step(
    "corpus",
    "gme_synthesis.corpus.importing:import_corpus",
    "data/corpus",
    section="corpus",
    role="dataset",
    verb="corpus import",
)
PAIRS = Step(
    "corpus",
    "gme_synthesis.pairs.importing:import_pairs",
    "data/pairs",
    section="corpus",
    role="dataset",
    verb="corpus import",
)
PUBLIC = Step(
    "corpus",
    "gme_synthesis.public.importing:import_public",
    "data/public",
    section="corpus",
    role="dataset",
    verb="corpus import",
)


def pipeline_chain(config: PipelineConfig) -> Chain:
    """Returns the chain of a pipeline file, from its corpus to its report."""
    if isinstance(config, FilesPipeline):
        steps = (IMPORT, SYNTHESIZE, *_training_and_evaluation(config, "validate_files", "synthesize", "synthesize"))
    elif isinstance(config, PairsPipeline):
        steps = (PAIRS, *_training_and_evaluation(config, "validate_pairs", "corpus", "corpus"))
    elif isinstance(config, PublicPipeline):
        steps = (PUBLIC, *_training_and_evaluation(config, "validate_pairs", "corpus", "corpus"))
    elif isinstance(config, JoinedPipeline):
        parts = [step for name, part in config.corpora.items() for step in _of_part(name, part)]
        steps = (*parts, _join(config), *_training_and_evaluation(config, "validate_pairs", "corpus", "corpus"))
    else:
        return Chain(config, (ATLAS, SYNTHESIZE, *_training_and_evaluation(config, "validate", "corpus", "synthesize")))
    return Chain(config, tuple(_in_folder_of(config.name, step) for step in steps))


def _of_part(name: str, part: AnyPart) -> Iterator[Step]:
    """Yields the steps of one of several corpora: import and, if it has passages, synthesis and validation."""
    section = f"corpora.{name}"
    imported = {"atlas": ATLAS, "files": IMPORT, "pairs": PAIRS, "public": PUBLIC}[part.corpus.kind]
    corpus = replace(
        imported, name=f"{name}.corpus", output=f"data/{name}", section=f"{section}.corpus", verb="pipeline"
    )
    yield corpus
    if isinstance(part, ExamplesPart):
        return
    yield replace(
        SYNTHESIZE,
        name=f"{name}.synthesize",
        output=f"data/{name}-synthetic",
        section=f"{section}.synthesis",
        inputs={"corpus": corpus.name},
        verb="pipeline",
    )
    is_atlas = isinstance(part, AtlasPart)
    yield Step(
        f"{name}.validate",
        f"gme_validation.step:{'validate' if is_atlas else 'validate_files'}",
        f"runs/{name}-validation",
        section=f"{section}.validation" if is_atlas else "validation",
        inputs={"corpus": corpus.name, "synthetic": f"{name}.synthesize"},
        role="validation",
    )


def _join(config: JoinedPipeline) -> Step:
    """Returns the step that joins all corpora into one; later steps know only that one."""
    inputs: dict[str, str] = {}
    for name, part in config.corpora.items():
        inputs[name] = f"{name}.corpus" if isinstance(part, ExamplesPart) else f"{name}.synthesize"
        if isinstance(
            part, AtlasPart
        ):  # its tasks and pictures are in the corpus, its examples in the output of synthesis
            inputs[tasks_input(name)] = f"{name}.corpus"
    # Nothing is joined before every corpus that was synthesised has been validated.
    gates = tuple(f"{name}.validate" for name, part in config.corpora.items() if not isinstance(part, ExamplesPart))
    join = "gme_synthesis.joining:join_corpora"
    return Step("corpus", join, "data/joined", section="join", inputs=inputs, after=gates, role="dataset")


def _training_and_evaluation(config: PipelineConfig, validate: str, tasks: str, examples: str) -> tuple[Step, ...]:
    """Returns the steps after the data: baselines, validation, training, mining, evaluation, report.

    Args:
        config: The pipeline; without a second stage nothing is mined.
        validate: Name of the function of `gme_validation.step` for the kind of the data.
        tasks: The step whose output has the tasks and the pictures.
        examples: The step whose output has the training examples.
    """
    data = {"corpus": tasks, "synthetic": examples}
    first = train_step("train-1", "stage_1", "checkpoints/stage1", data)
    # Training reads nothing of the validation, but waits for it.
    first = replace(first, verb="train --stage 1", after=("validate",))
    models = [first]
    steps = [
        Step(
            "baselines",
            "umrb.baselines:run_baselines",
            "runs/baselines",
            section="baselines",
            inputs={"corpus": tasks},
            role="baselines",
            verb="baselines",
        ),
        Step(
            "validate",
            f"gme_validation.step:{validate}",
            "runs/validation",
            section="validation",
            inputs={"corpus": "corpus", "synthetic": examples},
            role="validation",
            verb="validate",
        ),
        first,
    ]
    if config.stage_2 is not None:
        mining = Step(
            "mine",
            "gme_training.step:mine",
            "checkpoints/mined",
            section="mining",
            inputs={**data, "model": "train-1"},
            role="dataset",
            verb="mine",
            alone=True,
        )
        inputs = {"corpus": tasks, "synthetic": "mine", "model": "train-1"}
        second = replace(train_step("train-2", "stage_2", "checkpoints/stage2", inputs), verb="train --stage 2")
        models.append(second)
        steps += [mining, second]
    # A pipeline without a second stage releases the model of stage 1.
    last = models[-1].name
    evaluate = Step(
        "evaluate",
        "umrb.evaluation:run_evaluation",
        "runs/evaluation",
        section="evaluation",
        inputs={"corpus": tasks, "model": last},
        role="evaluation",
        verb="evaluate",
        alone=True,
    )
    earlier = {f"stage{number}": step.name for number, step in enumerate(models[:-1], start=1)}
    report = Step(
        "report",
        "umrb.report.build:build_report",
        "runs/report",
        section="report",
        inputs={
            "corpus": tasks,
            "synthetic": examples,
            "baselines": "baselines",
            "evaluation": "evaluate",
            **earlier,  # the report plots curves in the order of its inputs, so earlier stages come first
            "model": last,
        },
        role="report",
        verb="report",
    )
    return (*steps, evaluate, report)


def study_chain(config: PipelineConfig, folder: str) -> Chain:
    """Returns the chain of one variant of a study: it shares the pipeline's data, and has its models in `folder`."""
    chain = pipeline_chain(config)
    # A study has no validation to wait for. Mined negatives are a dataset, but depend on the variant's own model.
    shared = [replace(step, after=()) for step in chain if step.role == "dataset" and step.name != "mine"]
    of_variant = [step for step in chain if step.role in ("model", "evaluation") or step.name == "mine"]
    moved = (
        replace(step, output=f"{folder}/{step.output}", after=(), logs=_log_name(folder, step)) for step in of_variant
    )
    return Chain(chain.config, (*shared, *moved))


def _log_name(folder: str, step: Step) -> str:
    return f"{folder.removeprefix('runs/').replace('/', '.')}.{step.name}"


def train_step(name: str, section: str, output: str, inputs: dict[str, str]) -> Step:
    """Returns a step that trains a stage."""
    run = "gme_training.step:train"
    return Step(name, run, output, section=section, inputs=inputs, role="model", alone=True)


def _in_folder_of(name: str, step: Step) -> Step:
    """Returns the step with its output in a folder of the pipeline, so that several pipelines fit in one workspace."""
    top, _, subfolder = step.output.partition("/")
    return replace(step, output=f"{top}/pipelines/{name}/{subfolder}", logs=f"{name}.{step.name}")
