"""The chain of a corpus of one's own: import, synthesize, train, mine, train again, evaluate; configured by one file.

The steps are those of the default pipeline, on other inputs and with outputs of their own, so both fit one workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from flows.chain import Planned, link, published
from gme_cli.options import Common
from gme_data.manifest import read_manifest, require
from gme_data.settings import Frozen, load_config
from gme_data.steps import Outcome, Step, execute, find_done, step_key
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


Do = Callable[[Step, Frozen, Mapping[str, Outcome], Path], Outcome]
"""Does a step, as `execute`, or says what would be done."""


class NotDoneError(Exception):
    """Raised by a rehearsal at the first step that would be done: what comes after it depends on its output."""


class Rehearsal:
    """Stands in for `execute`: does nothing, and notes of each step whether it is done.

    Attributes:
        said: The steps so far.
    """

    def __init__(self) -> None:
        self.said: list[Planned] = []

    def __call__(self, step: Step, config: Frozen, inputs: Mapping[str, Outcome], workspace: Path) -> Outcome:
        """See `execute`.

        Raises:
            NotDoneError: The step would be done.
        """
        key = step_key(step, config, {name: outcome.manifest for name, outcome in inputs.items()})[0]
        found, last = find_done(step, key, workspace), read_manifest(workspace / step.output)
        seconds = last.seconds if last else None
        if found is None:
            reason = "config, input or code changed" if last else "never made"
            self.said.append(Planned(step.name, "run", f"{reason}; then what comes after it", seconds))
            raise NotDoneError
        self.said.append(Planned(step.name, "done", "same key, files verified", seconds))
        return found


def import_own(
    config: OwnConfig, passages: Path | None, pictures: Path | None, workspace: Path, do: Do = execute
) -> Outcome:
    """Import; the paths given go before those of the config."""
    given = {"passages": passages, "pictures": pictures}
    corpus = config.corpus.model_copy(update={name: path for name, path in given.items() if path})
    return do(CORPUS_IMPORT, corpus.sealed(), {}, workspace)


def import_atlas_corpus(workspace: Path, do: Do = execute) -> Outcome:
    """Import the train part of Atlas, which must have been built."""
    return do(CORPUS_ATLAS, AtlasCorpusConfig(), {"atlas": published("corpus", workspace)}, workspace)


def synthesize_own(config: OwnConfig, workspace: Path, do: Do = execute) -> Outcome:
    """Synthesise from what was imported."""
    corpus = _published(CORPUS_IMPORT, "corpus import", workspace)
    return do(SYNTHESIZE_CORPUS, config.synthesis, {"corpus": corpus}, workspace)


def train_own(config: OwnConfig, workspace: Path, do: Do = execute) -> Outcome:
    """Train on what was synthesised, and score the model on what was held out."""
    own = _published(SYNTHESIZE_CORPUS, "corpus synthesize", workspace)
    data = {"corpus": own, "synthetic": own}
    stages = config.mining is not None and config.stage_2 is not None
    model = do(
        _own("train-1", "checkpoints/own-stage1" if stages else "checkpoints/own"), config.stage_1, data, workspace
    )
    if config.mining is not None and config.stage_2 is not None:
        mined = do(_own("mine", "checkpoints/own-mined"), config.mining, {**data, "model": model}, workspace)
        going_on = {"corpus": own, "synthetic": mined, "model": model}
        model = do(_own("train-2", "checkpoints/own"), config.stage_2, going_on, workspace)
    inputs = {"corpus": own, "model": model}
    return do(_own("evaluate", "runs/own-evaluation"), config.evaluation, inputs, workspace)


def _own(name: str, output: str) -> Step:
    """A step of the chain with another output; its logs lie apart too, so it may run beside the default pipeline."""
    return replace(link(name).load(), name=f"own-{name}", output=output)


def _published(step: Step, verb: str, workspace: Path) -> Outcome:
    folder = workspace / step.output
    return Outcome(step.name, folder, require(folder, verb), reused=True)
