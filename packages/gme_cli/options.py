"""What the verbs share: the options --config, --workspace, --json, --dry-run, --model, and how results are printed."""

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
"""What --inputs takes: how to make the inputs of a model that does not say it."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options of every verb."""

    config: Annotated[Path, Parameter(name=["--config", "-c"])] = DEFAULT_CONFIG
    """The pipeline file."""
    overrides: Annotated[tuple[str, ...], Parameter(name=["--set"], negative="")] = ()
    """Set a field on top of the file, e.g. --set stage_1.phases.0.steps=2; may be repeated."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as JSON and nothing else on standard output."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Say what would be done, and do nothing."""

    def pipeline(self) -> PipelineConfig:
        """The configuration that --config and --set give. See `load_pipeline` for what it raises."""
        from flows.config import load_pipeline

        return load_pipeline(self.config, self.overrides)

    def own_pipeline(self) -> OwnPipeline:
        """The same, where data of one's own are expected.

        Raises:
            FoundryError: The file is over another kind of corpus.
        """
        from flows.config import OwnPipeline

        return self._of_kind(
            OwnPipeline, "data of your own, `corpus: {kind: files, passages: ...}`, `kind: pairs` or `kind: public`"
        )

    def files_pipeline(self) -> FilesPipeline:
        """As `own_pipeline`, where the data must be passages."""
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


def say(text: str) -> None:
    """One line for people, on standard output."""
    sys.stdout.write(text + "\n")


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """The result for programs, on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def find_model(name: str, common: Common) -> tuple[str, Path | str]:
    """What names a model, and where it is: a path or hub name as given, else an alias of the registry.

    Raises:
        FoundryError: Nothing is registered under the alias.
    """
    if "/" in name or Path(name).is_dir():
        return name, name
    champion = registered(name, common)
    return champion.digest, champion.folder


def registered(alias: str, common: Common) -> RegisteredModel:
    """The version that an alias points at: of the pipeline's model, or with ``champion@PIPELINE`` of another's.

    Raises:
        FoundryError: Nothing is registered under the alias, or the files are not the registered ones.
    """
    from flows.config import model_name_of
    from gme_release.registry.champion import resolve_model

    alias, _, pipeline = alias.partition("@")
    name = model_name_of(pipeline) if pipeline else common.pipeline().release.model_name
    return resolve_model(common.workspace, name, alias)


def tell_inputs(folder: Path | str, inputs: Inputs | None) -> None:
    """One line on standard error: what says that the inputs of a model are made as GME's.

    Raises:
        FoundryError: See `family.require_gme`, before anything slow is imported.
    """
    from gme_embedder.model_files.family import require_gme
    from gme_embedder.model_files.locate import locate

    sys.stderr.write(f"{folder}: inputs are made as GME's ({require_gme(locate(folder), inputs)}).\n")
