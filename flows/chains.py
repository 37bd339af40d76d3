"""Every chain there is: what its steps are called, which function each runs, what it takes and where it writes.

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
    judged=True,
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
    """The chain of a pipeline file, from its corpus to its report."""
    if isinstance(config, FilesPipeline):
        steps = (IMPORT, SYNTHESIZE, *_learn_and_judge(config, "validate_files", "synthesize", "synthesize"))
    elif isinstance(config, PairsPipeline):
        steps = (PAIRS, *_learn_and_judge(config, "validate_pairs", "corpus", "corpus"))
    elif isinstance(config, PublicPipeline):
        steps = (PUBLIC, *_learn_and_judge(config, "validate_pairs", "corpus", "corpus"))
    elif isinstance(config, JoinedPipeline):
        parts = [step for name, part in config.corpora.items() for step in _of_part(name, part)]
        steps = (*parts, _join(config), *_learn_and_judge(config, "validate_pairs", "corpus", "corpus"))
    else:
        return Chain(config, (ATLAS, SYNTHESIZE, *_learn_and_judge(config, "validate", "corpus", "synthesize")))
    return Chain(config, tuple(_in_folder_of(config.name, step) for step in steps))


def _of_part(name: str, part: AnyPart) -> Iterator[Step]:
    """The steps of one of several corpora: it is imported, and if it has passages, synthesised and validated."""
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
    """The step that makes one corpus of all; what comes after it knows no parts."""
    inputs: dict[str, str] = {}
    for name, part in config.corpora.items():
        inputs[name] = f"{name}.corpus" if isinstance(part, ExamplesPart) else f"{name}.synthesize"
        if isinstance(part, AtlasPart):  # its tasks and pictures lie with the corpus, its examples come of synthesis
            inputs[tasks_input(name)] = f"{name}.corpus"
    gates = tuple(f"{name}.validate" for name, part in config.corpora.items() if not isinstance(part, ExamplesPart))
    join = "gme_synthesis.joining:join_corpora"
    return Step("corpus", join, "data/joined", section="join", inputs=inputs, after=gates, role="dataset")


def _learn_and_judge(config: PipelineConfig, validate: str, tasks: str, examples: str) -> tuple[Step, ...]:
    """The steps after the data.

    Args:
        config: Whether it has a second stage decides about mining.
        validate: Function of `gme_validation.step` that knows the kind of the data.
        tasks: The step whose output has the tasks and the pictures.
        examples: The step whose output has the training examples.
    """
    data = {"corpus": tasks, "synthetic": examples}
    first = train_step("train-1", "stage_1", "checkpoints/stage1", data)
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
        mine = Step(
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
        steps += [mine, second]
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
            **earlier,  # for their curves; before the model, so that they come first
            "model": last,
        },
        role="report",
        verb="report",
    )
    return (*steps, evaluate, report)


def study_chain(config: PipelineConfig, folder: str) -> Chain:
    """One variant of a study: its data are the pipeline's own, what it trains and scores lies in `folder`."""
    chain = pipeline_chain(config)
    shared = [replace(step, after=()) for step in chain if step.role == "dataset" and step.name != "mine"]
    own = [step for step in chain if step.role in ("model", "evaluation") or step.name == "mine"]
    moved = (replace(step, output=f"{folder}/{step.output}", after=(), logs=_log_name(folder, step)) for step in own)
    return Chain(chain.config, (*shared, *moved))


def _log_name(folder: str, step: Step) -> str:
    return f"{folder.removeprefix('runs/').replace('/', '.')}.{step.name}"


def train_step(name: str, section: str, output: str, inputs: dict[str, str]) -> Step:
    """A stage of training."""
    run = "gme_training.step:train"
    return Step(name, run, output, section=section, inputs=inputs, role="model", alone=True)


def _in_folder_of(name: str, step: Step) -> Step:
    """The step with its output in a folder of the pipeline's own, so that several fit one workspace."""
    home, _, rest = step.output.partition("/")
    return replace(step, output=f"{home}/pipelines/{name}/{rest}", logs=f"{name}.{step.name}")
