"""One pipeline, one file: the configuration of every step, composed; the kind of the corpus decides its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Discriminator, Field, PositiveFloat, StringConstraints, Tag, TypeAdapter, model_validator

from atlas.config import AtlasConfig
from gme_data.errors import FoundryError, did_you_mean
from gme_data.settings import Frozen, Sealable, parse_config, read_raw
from gme_release.config import ReleaseConfig
from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.import_config import ImportConfig
from gme_synthesis.joining import JoinConfig
from gme_synthesis.pairs.config import PairsConfig
from gme_synthesis.public.config import PublicConfig
from gme_training.config import MiningConfig, TrainingConfig
from gme_validation.config import AtlasValidationConfig, ValidationConfig
from umrb.config import BaselineConfig, EvaluationConfig, ReportConfig, SuiteSelection

SealableT = TypeVar("SealableT", bound=Sealable)
CorpusT = TypeVar("CorpusT", bound=Frozen)
SuiteSelectionT = TypeVar("SuiteSelectionT", bound=SuiteSelection)

NAME = r"^[a-z0-9][a-z0-9.-]*$"
CorpusName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
"""Names one of several corpora, and what comes of it."""
LONGEST_NAME = 100
"""With a key and a date behind it, it names folders and runs."""


_SHARED = ("suites", "scoring", "device")
"""Fields of the evaluation that baselines have too."""


def model_name_of(pipeline: str) -> str:
    """What the model of a pipeline is registered as, unless its file says otherwise."""
    return pipeline if pipeline.startswith("gme-") else f"gme-{pipeline}"


class PipelineConfig(Frozen):
    """What every pipeline file says. A section that is left out has its defaults."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Names the run, its report and its records."""
    validation: ValidationConfig = ValidationConfig()
    """What must hold before anything is trained."""
    stage_1: TrainingConfig
    """Training with in-batch negatives."""
    mining: MiningConfig = MiningConfig()
    """Hard negatives, found by the model of stage 1."""
    stage_2: TrainingConfig | None = None
    """Training goes on with the hard negatives; without it the model of stage 1 is the last, and nothing is mined."""
    baselines: BaselineConfig = BaselineConfig()
    """What the model is compared with."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Which suites of tasks judge the model; baselines are judged by the same."""
    report: ReportConfig = ReportConfig()
    """The page that people read."""
    release: ReleaseConfig = ReleaseConfig()
    """Where versions, runs and models are recorded, and the gate."""

    def sealed(self) -> Self:
        """The same with the digests of all files outside of the workspace that it speaks of, as they are now.

        Raises:
            FoundryError: One is missing, of no kind that is read, or not what a sealed configuration says.
        """
        sections = ("evaluation", "baselines")
        return self.model_copy(update={name: _sealed_now(getattr(self, name), name) for name in sections})

    @model_validator(mode="after")
    def _baselines_are_judged_by_the_same(self) -> Self:
        """What is compared is scored on the same tasks, in the same way, unless the file says otherwise."""
        own = {"base": self.stage_1.base, **{name: getattr(self.evaluation, name) for name in _SHARED}}
        shared = {name: value for name, value in own.items() if name not in self.baselines.model_fields_set}
        if any(getattr(self.baselines, name) != value for name, value in shared.items()):
            object.__setattr__(self, "baselines", self.baselines.model_copy(update=shared))
        return self

    @model_validator(mode="after")
    def _is_recorded_under_its_name(self) -> Self:
        """A model and an experiment that are not named are named after the pipeline."""
        named = model_name_of(self.name)
        given = self.release.model_fields_set
        names = {field: named for field in ("experiment", "model_name") if field not in given}
        if names:
            object.__setattr__(self, "release", self.release.model_copy(update=names))
        return self


def _sealed_now(section: SealableT, name: str) -> SealableT:
    """A section with the digest of its files as they are now.

    Raises:
        FoundryError: It has a digest already, as a record has, and this is another.
    """
    now = section.model_copy(update={"digest": ""}).sealed()
    if section.digest not in ("", now.digest):
        raise FoundryError(
            f"The files of `{name}` changed: the digest was {section.digest[:12]}, found {now.digest[:12]}.",
            hint=f"Bring back the files of then, or leave `{name}.digest` out to take these.",
        )
    return now


class AtlasPipeline(PipelineConfig):
    """A pipeline over the embedded world."""

    corpus: AtlasConfig = AtlasConfig()
    """The embedded world."""
    synthesis: AtlasSynthesisConfig = AtlasSynthesisConfig()
    """Passages, facts and pictures to training examples."""
    validation: AtlasValidationConfig = AtlasValidationConfig()
    """What must hold before anything is trained."""


class OwnPipeline(PipelineConfig):
    """A pipeline over data of one's own, whose outputs lie in folders of its name."""

    corpus: ImportConfig | PairsConfig | PublicConfig
    """Where the data are; relative paths start at the folder of the pipeline file."""

    def sealed(self) -> Self:
        """See `PipelineConfig.sealed`."""
        return super().sealed().model_copy(update={"corpus": _sealed_now(self.corpus, "corpus")})


class FilesPipeline(OwnPipeline):
    """A pipeline over passages and pictures of one's own."""

    corpus: ImportConfig
    """Where passages and pictures are; relative paths start at the folder of the pipeline file."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Passages to training examples and held-out tasks."""


class PairsPipeline(OwnPipeline):
    """A pipeline over pairs that somebody has; nothing is synthesised."""

    corpus: PairsConfig
    """Where pairs and their pictures are; relative paths start at the folder of the pipeline file."""


class PublicPipeline(OwnPipeline):
    """A pipeline over public training sets, by name; nothing is synthesised."""

    corpus: PublicConfig
    """Which sets, in which shares; relative paths start at the folder of the pipeline file."""


class CorpusPart(Frozen):
    """One of several corpora."""

    share: PositiveFloat = 1.0
    """Its part of the examples."""


class AtlasPart(CorpusPart):
    """The embedded world among other corpora."""

    corpus: AtlasConfig
    """The embedded world."""
    synthesis: AtlasSynthesisConfig = AtlasSynthesisConfig()
    """How its passages, facts and pictures become examples."""
    validation: AtlasValidationConfig = AtlasValidationConfig()
    """What must hold of it; what must hold of all corpora together stands with the pipeline."""


class FilesPart(CorpusPart):
    """Passages and pictures among other corpora."""

    corpus: ImportConfig
    """Where its data are, as in a file of one corpus."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """How its passages become examples."""


class ExamplesPart(CorpusPart):
    """Pairs or public sets among other corpora: there are examples already."""

    corpus: PairsConfig | PublicConfig = Field(discriminator="kind")
    """Where its data are, as in a file of one corpus."""

    @model_validator(mode="before")
    @classmethod
    def _is_not_synthesised(cls, raw: Any) -> Any:  # noqa: ANN401 - what a file says, before it is read
        if isinstance(raw, Mapping) and raw.get("synthesis") is not None:
            kind = _kind_of_part(raw)
            raise ValueError(f"synthesis: a corpus of the kind {kind} has examples, none are made of it")
        return {name: value for name, value in raw.items() if name != "synthesis"} if isinstance(raw, Mapping) else raw


def _kind_of_part(part: object) -> str | None:
    """The kind of the corpus of a part, which decides the part's fields; None if it names none."""
    corpus = part.get("corpus") if isinstance(part, Mapping) else getattr(part, "corpus", None)
    kind = corpus.get("kind") if isinstance(corpus, Mapping) else getattr(corpus, "kind", None)
    return kind if isinstance(kind, str) else None


AnyPart = Annotated[
    Annotated[AtlasPart, Tag("atlas")]
    | Annotated[FilesPart, Tag("files")]
    | Annotated[ExamplesPart, Tag("pairs")]
    | Annotated[ExamplesPart, Tag("public")],
    Discriminator(
        _kind_of_part,
        custom_error_type="kind",
        custom_error_message="expected corpus.kind to be atlas, files, pairs or public",
    ),
]
"""One of several corpora, of any kind."""


class JoinedPipeline(PipelineConfig):
    """A pipeline over several corpora, each with its share of the examples."""

    corpora: dict[CorpusName, AnyPart] = Field(min_length=2)
    """The corpora by name; relative paths start at the folder of the pipeline file."""
    join: JoinConfig = JoinConfig()
    """How they become one."""

    @model_validator(mode="after")
    def _shares_stand_with_the_corpora(self) -> Self:
        shares = {name: part.share for name, part in self.corpora.items()}
        if self.join.shares not in ({}, shares):
            raise ValueError("join.shares: shares stand with the corpora")
        object.__setattr__(self, "join", self.join.model_copy(update={"shares": shares}))
        return self

    def sealed(self) -> Self:
        """See `PipelineConfig.sealed`."""
        corpora = {
            name: part
            if isinstance(part, AtlasPart)
            else part.model_copy(update={"corpus": _sealed_now(part.corpus, f"corpora.{name}.corpus")})
            for name, part in self.corpora.items()
        }
        return super().sealed().model_copy(update={"corpora": corpora})


def public_corpus(config: PipelineConfig) -> PublicConfig | None:
    """The public training sets of a pipeline, alone or among several corpora; None if it has none.

    Raises:
        FoundryError: Two of its corpora are public sets.
    """
    corpora: list[Frozen] = (
        [part.corpus for part in config.corpora.values()] if isinstance(config, JoinedPipeline) else []
    )
    corpora += [config.corpus] if isinstance(config, PublicPipeline) else []
    public = [corpus for corpus in corpora if isinstance(corpus, PublicConfig)]
    if len(public) > 1:
        raise FoundryError("Two of the corpora are public sets.", hint="Name all sets in one of them; it has shares.")
    return public[0] if public else None


KINDS: Mapping[str, type[PipelineConfig]] = {
    "atlas": AtlasPipeline,
    "files": FilesPipeline,
    "pairs": PairsPipeline,
    "public": PublicPipeline,
}
"""Kinds of corpora, as ``corpus.kind`` names them."""


def pipeline_schema() -> dict[str, Any]:
    """The JSON schema of a pipeline file: of each kind of corpus."""
    return TypeAdapter(AtlasPipeline | FilesPipeline | PairsPipeline | PublicPipeline | JoinedPipeline).json_schema()


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read a pipeline file; `overrides` as in `load_config`.

    Raises:
        FoundryError: Missing file, bad YAML, unknown kind of corpus, unknown or bad field (with a suggestion).
    """
    raw, where = read_raw(path, overrides)
    config = parse_pipeline(raw, where=where)
    found: dict[str, Frozen] = {name: _from(path.parent, getattr(config, name)) for name in ("evaluation", "baselines")}
    if isinstance(config, OwnPipeline):
        found["corpus"] = _based_at(path.parent, config.corpus)
    corpora = config.corpora if isinstance(config, JoinedPipeline) else {}
    parts = {
        name: part.model_copy(update={"corpus": _based_at(path.parent, part.corpus)}) for name, part in corpora.items()
    }
    return config.model_copy(update={**found, **({"corpora": parts} if parts else {})})


def _based_at(folder: Path, corpus: CorpusT) -> CorpusT:
    """The corpus with paths as seen from here, not from the folder of the pipeline file."""
    return corpus.model_copy(update={name: folder / value for name, value in corpus if isinstance(value, Path)})


def _from(folder: Path, judged: SuiteSelectionT) -> SuiteSelectionT:
    """The section with the folders of its suites as seen from here, not from the folder of the pipeline file."""
    suites = [
        suite.model_copy(update={name: folder / value for name, value in suite if isinstance(value, Path)})
        for suite in judged.suites
    ]
    return judged.model_copy(update={"suites": tuple(suites)})


def parse_pipeline(raw: Mapping[str, Any], *, where: str) -> PipelineConfig:
    """Validate what a pipeline file or a record says.

    Raises:
        FoundryError: Unknown kind of corpus, unknown or bad field (with a suggestion).
    """
    if "corpora" in raw:
        return parse_config(raw, JoinedPipeline, where=where)
    corpus = raw.get("corpus")
    fields = corpus if isinstance(corpus, Mapping) else {}
    kind = fields.get("kind", "atlas")
    if "kind" not in fields and fields.keys() & {"passages", "pairs", "pictures", "columns"}:
        raise FoundryError(
            f"{where}: corpus: data of one's own need `kind: files` (passages) or `kind: pairs`.",
            hint="Add it under `corpus:`; the file then goes through `gme pipeline` like any other.",
        )
    if not isinstance(kind, str) or kind not in KINDS:
        near = did_you_mean(str(kind), KINDS)
        raise FoundryError(f"{where}: corpus.kind: there is no kind '{kind}'.{near} Kinds: {', '.join(KINDS)}.")
    return parse_config(raw, KINDS[kind], where=where)
