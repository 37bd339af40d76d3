"""The pipeline file: the configuration of every step in one file; the kind of the corpus decides its fields."""

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
"""Pattern of the name of a pipeline."""
CorpusName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
"""Name of one of several corpora; it is part of the names of its steps and folders."""
MAX_NAME = 100
"""Characters of the name of a pipeline, which becomes part of the names of folders and runs."""
_SHARED = ("suites", "scoring", "device")
"""Fields that evaluation and baselines share."""


def model_name_of(pipeline: str) -> str:
    """Returns the name under which a pipeline's model is registered, unless its file says otherwise."""
    return pipeline if pipeline.startswith("gme-") else f"gme-{pipeline}"


class PipelineConfig(Frozen):
    """The fields of every pipeline file. A section that is left out has its defaults."""

    name: str = Field(pattern=NAME, max_length=MAX_NAME)
    """Name of the pipeline, and so of its runs, reports and records."""
    validation: ValidationConfig = ValidationConfig()
    """What must hold of the data before anything is trained."""
    stage_1: TrainingConfig
    """Training with in-batch negatives."""
    mining: MiningConfig = MiningConfig()
    """Mining of hard negatives with the model of stage 1."""
    stage_2: TrainingConfig | None = None
    """Training with hard negatives; without it nothing is mined, and the model of stage 1 is the last."""
    baselines: BaselineConfig = BaselineConfig()
    """The baselines that the model is compared with."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The suites of tasks that the model is scored on; baselines are scored on the same."""
    report: ReportConfig = ReportConfig()
    """The report of the run."""
    release: ReleaseConfig = ReleaseConfig()
    """The records of versions, runs and models, and the conditions of the gate."""

    def sealed(self) -> Self:
        """Returns the configuration with the digests of all files outside of the workspace that it names.

        Raises:
            FoundryError: A file is missing, of an unknown kind, or its digest differs from one that is already set.
        """
        sections = ("evaluation", "baselines")
        return self.model_copy(update={name: _sealed_now(getattr(self, name), name) for name in sections})

    @model_validator(mode="after")
    def _share_evaluation_with_baselines(self) -> Self:
        """Scores baselines on the same tasks, in the same way, unless the file says otherwise."""
        defaults = {"base": self.stage_1.base, **{name: getattr(self.evaluation, name) for name in _SHARED}}
        shared = {name: value for name, value in defaults.items() if name not in self.baselines.model_fields_set}
        if any(getattr(self.baselines, name) != value for name, value in shared.items()):
            # The model is frozen, and a validator that returns another instance is ignored by `__init__`.
            object.__setattr__(self, "baselines", self.baselines.model_copy(update=shared))
        return self

    @model_validator(mode="after")
    def _name_model_and_experiment(self) -> Self:
        """Names model and experiment after the pipeline, unless the file names them."""
        explicit = self.release.model_fields_set
        missing = [field for field in ("experiment", "model_name") if field not in explicit]
        names = dict.fromkeys(missing, model_name_of(self.name))
        if names:
            object.__setattr__(self, "release", self.release.model_copy(update=names))
        return self


def _sealed_now(section: SealableT, name: str) -> SealableT:
    """Returns a section with the present digest of its files.

    Raises:
        FoundryError: The section has another digest already, as that of a record has.
    """
    # Without its digest first: `sealed` keeps one that is there, and what is asked is the state of now.
    sealed = section.model_copy(update={"digest": ""}).sealed()
    if section.digest not in ("", sealed.digest):
        raise FoundryError(
            f"The files of `{name}` changed: the digest was {section.digest[:12]}, found {sealed.digest[:12]}.",
            hint=f"Bring back the files of then, or leave `{name}.digest` out to take these.",
        )
    return sealed


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
    """The data; relative paths start at the folder of the pipeline file."""

    def sealed(self) -> Self:
        """Returns the sealed configuration; see `PipelineConfig.sealed`."""
        return super().sealed().model_copy(update={"corpus": _sealed_now(self.corpus, "corpus")})


class FilesPipeline(OwnPipeline):
    """A pipeline over passages and pictures of one's own."""

    corpus: ImportConfig
    """The passages and pictures; relative paths start at the folder of the pipeline file."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Passages to training examples and held-out tasks."""


class PairsPipeline(OwnPipeline):
    """A pipeline over pairs of the user's own; nothing is synthesised."""

    corpus: PairsConfig
    """The pairs and their pictures; relative paths start at the folder of the pipeline file."""


class PublicPipeline(OwnPipeline):
    """A pipeline over public training sets, by name; nothing is synthesised."""

    corpus: PublicConfig
    """Which sets, in which shares; relative paths start at the folder of the pipeline file."""


class CorpusPart(Frozen):
    """One of several corpora."""

    share: PositiveFloat = 1.0
    """Its share of the examples, relative to those of the others."""


class AtlasPart(CorpusPart):
    """The embedded world among other corpora."""

    corpus: AtlasConfig
    """The embedded world."""
    synthesis: AtlasSynthesisConfig = AtlasSynthesisConfig()
    """Synthesis of examples from its passages, facts and pictures."""
    validation: AtlasValidationConfig = AtlasValidationConfig()
    """What must hold of it; what must hold of all corpora together is in the pipeline's own section."""


class FilesPart(CorpusPart):
    """Passages and pictures among other corpora."""

    corpus: ImportConfig
    """Its data, with the fields of a pipeline over this corpus alone."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Synthesis of examples from its passages."""


class ExamplesPart(CorpusPart):
    """Pairs or public sets among other corpora: they are examples already."""

    corpus: PairsConfig | PublicConfig = Field(discriminator="kind")
    """Its data, with the fields of a pipeline over this corpus alone."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_synthesis(cls, raw: Any) -> Any:  # noqa: ANN401 - what a file says, before it is read
        if isinstance(raw, Mapping) and raw.get("synthesis") is not None:
            kind = _kind_of_part(raw)
            raise ValueError(f"synthesis: a corpus of the kind {kind} has examples, none are made of it")
        return {name: value for name, value in raw.items() if name != "synthesis"} if isinstance(raw, Mapping) else raw


def _kind_of_part(part: object) -> str | None:
    """Returns the kind of a part's corpus, which decides the part's fields; None if it names no kind."""
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
    """The step that joins the corpora into one."""

    @model_validator(mode="after")
    def _collect_shares(self) -> Self:
        shares = {name: part.share for name, part in self.corpora.items()}
        # A record holds the shares in both places; a file may give them with the corpora alone.
        if self.join.shares not in ({}, shares):
            raise ValueError("join.shares: shares stand with the corpora")
        object.__setattr__(self, "join", self.join.model_copy(update={"shares": shares}))
        return self

    def sealed(self) -> Self:
        """Returns the sealed configuration; see `PipelineConfig.sealed`."""
        corpora = {
            name: part
            if isinstance(part, AtlasPart)
            else part.model_copy(update={"corpus": _sealed_now(part.corpus, f"corpora.{name}.corpus")})
            for name, part in self.corpora.items()
        }
        return super().sealed().model_copy(update={"corpora": corpora})


def public_corpus(config: PipelineConfig) -> PublicConfig | None:
    """Returns the public training sets of a pipeline, alone or among several corpora; None if it has none.

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
"""Value of ``corpus.kind`` -> configuration of the pipeline."""


def pipeline_schema() -> dict[str, Any]:
    """Returns the JSON schema of a pipeline file with any kind of corpus."""
    return TypeAdapter(AtlasPipeline | FilesPipeline | PairsPipeline | PublicPipeline | JoinedPipeline).json_schema()


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads a pipeline file; for `overrides` see `load_config`.

    Raises:
        FoundryError: The file is missing or no YAML, or it has an unknown kind of corpus, or an unknown or bad field.
    """
    raw, where = read_raw(path, overrides)
    config = parse_pipeline(raw, where=where)
    updates: dict[str, Any] = {
        name: _resolve_suites(path.parent, getattr(config, name)) for name in ("evaluation", "baselines")
    }
    if isinstance(config, OwnPipeline):
        updates["corpus"] = _resolve_paths(path.parent, config.corpus)
    if isinstance(config, JoinedPipeline):
        updates["corpora"] = {
            name: part.model_copy(update={"corpus": _resolve_paths(path.parent, part.corpus)})
            for name, part in config.corpora.items()
        }
    return config.model_copy(update=updates)


def _resolve_paths(folder: Path, corpus: CorpusT) -> CorpusT:
    """Returns the corpus with its relative paths resolved against the folder of the pipeline file."""
    return corpus.model_copy(update={name: folder / value for name, value in corpus if isinstance(value, Path)})


def _resolve_suites(folder: Path, section: SuiteSelectionT) -> SuiteSelectionT:
    """Returns the section with the folders of its suites resolved against the folder of the pipeline file."""
    suites = [
        suite.model_copy(update={name: folder / value for name, value in suite if isinstance(value, Path)})
        for suite in section.suites
    ]
    return section.model_copy(update={"suites": tuple(suites)})


def parse_pipeline(raw: Mapping[str, Any], *, where: str) -> PipelineConfig:
    """Validates the fields of a pipeline file or a record.

    Raises:
        FoundryError: There is an unknown kind of corpus, or an unknown or bad field.
    """
    # Decided before validation, so that errors name the fields of the kind that is meant, not those of a union.
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
        suggestion = did_you_mean(str(kind), KINDS)
        raise FoundryError(f"{where}: corpus.kind: there is no kind '{kind}'.{suggestion} Kinds: {', '.join(KINDS)}.")
    return parse_config(raw, KINDS[kind], where=where)
