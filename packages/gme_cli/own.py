"""The chain of a corpus of one's own: import, synthesize, train, mine, train again, evaluate; configured by one file.

The steps are those of the default pipeline, on other inputs and with outputs of their own, so both fit one workspace.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flows.chain import link, published
from gme_cli.options import Common
from gme_data.manifest import require
from gme_data.settings import Frozen, load_config
from gme_data.steps import Outcome, Step, execute
from gme_synthesis.corpus.atlas import CORPUS_ATLAS, AtlasCorpusConfig
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.importing import CORPUS_IMPORT, ImportConfig
from gme_synthesis.corpus.run import SYNTHESIZE_CORPUS
from gme_training.config import MiningConfig, TrainingConfig
from umrb.config import EvaluationConfig


class OwnConfig(Frozen):
    """One file for one corpus."""

    name: str = "own"
    """For people."""
    corpus: ImportConfig = ImportConfig()
    """Where passages and pictures are; relative paths start at this file's folder."""
    synthesis: CorpusSynthesisConfig = CorpusSynthesisConfig()
    """Passages to examples."""
    stage_1: TrainingConfig
    """Training with in-batch negatives."""
    mining: MiningConfig | None = None
    """Hard negatives, found by the model of stage 1; None stops after stage 1."""
    stage_2: TrainingConfig | None = None
    """Training goes on with the hard negatives; needs `mining`."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the model is scored on the held-out tasks."""


def load_own(common: Common) -> OwnConfig:
    """Read the file that --config names; paths of the corpus become relative to where the command runs.

    Raises:
        FoundryError: Missing file, bad YAML, unknown or bad field (with a suggestion).
    """
    config = load_config(common.config, OwnConfig, common.overrides)
    home = common.config.parent
    pictures = config.corpus.pictures
    corpus = {"passages": home / config.corpus.passages, "pictures": home / pictures if pictures else None}
    return config.model_copy(update={"corpus": config.corpus.model_copy(update=corpus)})


def import_own(config: OwnConfig, passages: Path | None, pictures: Path | None, workspace: Path) -> Outcome:
    """Import; the paths given go before those of the config."""
    given = {"passages": passages, "pictures": pictures}
    corpus = config.corpus.model_copy(update={name: path for name, path in given.items() if path})
    return execute(CORPUS_IMPORT, corpus.sealed(), {}, workspace)


def import_atlas_corpus(workspace: Path) -> Outcome:
    """Import the train part of Atlas, which must have been built."""
    return execute(CORPUS_ATLAS, AtlasCorpusConfig(), {"atlas": published("corpus", workspace)}, workspace)


def synthesize_own(config: OwnConfig, workspace: Path) -> Outcome:
    """Synthesise from what was imported."""
    corpus = _published(CORPUS_IMPORT, "corpus import", workspace)
    return execute(SYNTHESIZE_CORPUS, config.synthesis, {"corpus": corpus}, workspace)


def train_own(config: OwnConfig, workspace: Path) -> Outcome:
    """Train on what was synthesised, and score the model on what was held out."""
    own = _published(SYNTHESIZE_CORPUS, "corpus synthesize", workspace)
    data = {"corpus": own, "synthetic": own}
    stages = config.mining is not None and config.stage_2 is not None
    model = execute(
        _own("train-1", "checkpoints/own-stage1" if stages else "checkpoints/own"), config.stage_1, data, workspace
    )
    if config.mining is not None and config.stage_2 is not None:
        mined = execute(_own("mine", "checkpoints/own-mined"), config.mining, {**data, "model": model}, workspace)
        going_on = {"corpus": own, "synthetic": mined, "model": model}
        model = execute(_own("train-2", "checkpoints/own"), config.stage_2, going_on, workspace)
    inputs = {"corpus": own, "model": model}
    return execute(_own("evaluate", "runs/own-evaluation"), config.evaluation, inputs, workspace)


def _own(name: str, output: str) -> Step:
    """A step of the chain with another output; its logs lie apart too, so it may run beside the default pipeline."""
    return replace(link(name).load(), name=f"own-{name}", output=output)


def _published(step: Step, verb: str, workspace: Path) -> Outcome:
    folder = workspace / step.output
    return Outcome(step.name, folder, require(folder, verb), reused=True)
