"""Options that verbs share, and how their results are printed.

A verb takes the class that has exactly the options which it honours.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

if TYPE_CHECKING:
    from flows.config import FilesPipeline, OwnPipeline, PipelineConfig
    from gme_release.registry.champion import RegisteredModel

PipelineT = TypeVar("PipelineT", bound="PipelineConfig")
DEFAULT_CONFIG = Path("configs/tiny.yaml")
Inputs = Literal["gme"]
"""Values of --inputs: how to make the inputs of a model whose folder does not say it."""


@Parameter(name="*")
@dataclass(frozen=True)
class PipelineOptions:
    """Options of verbs that read a pipeline file."""

    config: Annotated[Path, Parameter(name=["--config", "-c"])] = DEFAULT_CONFIG
    """The pipeline file."""
    overrides: Annotated[tuple[str, ...], Parameter(name=["--set"], negative="")] = ()
    """Set a field on top of the file, e.g. --set stage_1.phases.0.steps=2; may be repeated."""

    def pipeline(self) -> PipelineConfig:
        """Returns the configuration of --config and --set; raises what `load_pipeline` raises."""
        from flows.config import load_pipeline

        return load_pipeline(self.config, self.overrides)

    def own_pipeline(self) -> OwnPipeline:
        """Returns the same, for verbs that need a corpus of the user's own.

        Raises:
            FoundryError: The file has another kind of corpus.
        """
        from flows.config import OwnPipeline

        return self._of_kind(
            OwnPipeline, "data of your own, `corpus: {kind: files, passages: ...}`, `kind: pairs` or `kind: public`"
        )

    def files_pipeline(self) -> FilesPipeline:
        """Returns the same, for verbs that need passages; raises as `own_pipeline` does."""
        from flows.config import FilesPipeline

        return self._of_kind(FilesPipeline, "passages of your own, `corpus: {kind: files, passages: ...}`")

    def _of_kind(self, kind: type[PipelineT], expected: str) -> PipelineT:
        from gme_data.errors import FoundryError

        config = self.pipeline()
        if isinstance(config, kind):
            return config
        raise FoundryError(
            f"{self.config}: expected {expected}.",
            hint="Give its pipeline file with --config, such as examples/own-corpus/own.yaml; `gme init` writes one.",
        )


@Parameter(name="*")
@dataclass(frozen=True)
class WorkspaceOptions:
    """Options of verbs that work in a workspace."""

    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports."""


@Parameter(name="*")
@dataclass(frozen=True)
class JsonOptions:
    """Options of verbs that print a result."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as JSON and nothing else on standard output."""


@Parameter(name="*")
@dataclass(frozen=True)
class DryRunOptions:
    """Options of verbs that change something."""

    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Say what would be done, and do nothing."""


# Help lists the fields of the last base first.
@Parameter(name="*")
@dataclass(frozen=True)
class PipelineInWorkspace(WorkspaceOptions, PipelineOptions):
    """Options of verbs that read a pipeline file and its workspace."""


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions(JsonOptions, PipelineInWorkspace):
    """Options of verbs that report on a pipeline in its workspace, and change nothing."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common(DryRunOptions, ReportOptions):
    """Options of verbs that run something of a pipeline in its workspace."""


def say(text: str) -> None:
    """Prints one line for people on standard output."""
    sys.stdout.write(text + "\n")


def say_plan(text: str, *, json: bool) -> None:
    """Prints what --dry-run would do: one line, or with --json an object."""
    print_json({"dry_run": text}) if json else say(text)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Prints the result for programs on standard output."""
    # Paths and dates are printed as text.
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def find_model(name: str, options: PipelineInWorkspace) -> tuple[str, Path | str]:
    """Returns name and location of a model: a path or hub name as it is, else the digest and folder behind an alias.

    Raises:
        FoundryError: Nothing is registered under the alias.
    """
    # An alias has no slash, and MLflow allows none; a folder wins over an alias of the same name.
    if "/" in name or Path(name).is_dir():
        return name, name
    champion = registered_model(name, options)
    return champion.digest, champion.folder


def registered_model(alias: str, options: PipelineInWorkspace) -> RegisteredModel:
    """Returns the version that an alias points at, of the pipeline's model or, by ``champion@PIPELINE``, of another's.

    Raises:
        FoundryError: Nothing is registered under the alias, or the files are not the registered ones.
    """
    from flows.config import model_name_of
    from gme_release.registry.champion import resolve_model

    alias, _, pipeline = alias.partition("@")
    name = model_name_of(pipeline) if pipeline else options.pipeline().release.model_name
    return resolve_model(options.workspace, name, alias)


def print_inputs_note(folder: Path | str, inputs: Inputs | None) -> None:
    """Prints on standard error why the inputs of a model are made as GME's.

    Raises:
        FoundryError: `gme_embedder.family.require_gme` raises it; it is called before anything slow is imported.
    """
    from gme_embedder.model_files.family import require_gme
    from gme_embedder.model_files.locate import locate

    # On standard error, because --json leaves standard output to the result.
    sys.stderr.write(f"{folder}: inputs are made as GME's ({require_gme(locate(folder), inputs)}).\n")
