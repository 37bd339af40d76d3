"""Configuration of recording and release: the section `release` of a pipeline file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, field_validator, model_validator

from gme_data.settings import Frozen
from gme_release.names import Alias, ExperimentName, ModelName, RemoteName, TrackedFolderName
from gme_release.settings import check_store


class Floor(Frozen):
    """The least score of a task."""

    task: str
    """Name of a task, as in ``task.yaml``."""
    metric: str
    """Name of one of its scores, e.g. ``hit_rate_at_10``."""
    min: float
    """The score must be at least this."""


class TypeFloor(Frozen):
    """The least mean score of a task type."""

    task_type: str
    """E.g. ``T->IT``."""
    min: float
    """The mean of the headline metrics of its tasks must be at least this."""


class ReleaseConfig(Frozen):
    """Records of a run, and what decides whether its model is registered. Paths are relative to the workspace."""

    experiment: ExperimentName = "gme-tiny"
    """MLflow experiment of the runs."""
    model_name: ModelName = "gme-tiny"
    """Name in the model registry."""
    promotion: Path = Path("mlflow/promotion.yaml")
    """The rules that hold of any pipeline; looked for in the workspace, then in the source checkout."""
    floors: tuple[Floor, ...] = ()
    """Absolute floors of this pipeline's tasks."""
    type_floors: tuple[TypeFloor, ...] = ()
    """Absolute floors of its task types."""
    tracked: tuple[TrackedFolderName, ...] = Field(("data", "checkpoints"), min_length=1)
    """Folders whose bytes DVC keeps, each behind the pointer file ``<folder>.dvc``."""
    remote: RemoteName = "store"
    """DVC remote the bytes are pushed to."""
    remote_url: str = "dvc-store"
    """Address of the remote in a workspace that has no DVC configuration yet."""
    scrub: bool = True
    """Hash every object of the local cache and of a local remote before adding to it (about 2 s per GB)."""
    promote: bool = True
    """Make a model that passed the champion at once; else it is the candidate until `gme promote`."""
    candidate: Alias = "candidate"
    """Alias of the version that passed the gate last."""
    champion: Alias = "champion"
    """Alias of the version in use."""
    previous: Alias = "previous"
    """Alias of the version that was the champion before."""

    @field_validator("remote_url")
    @classmethod
    def _check_remote_url(cls, url: str) -> str:
        # DVC interpolates %(name)s in its configuration.
        if not url.strip() or not url.isprintable() or "%(" in url:
            raise ValueError("expected a folder, or an address such as s3://bucket/prefix")
        return check_store(url)

    @model_validator(mode="after")
    def _check_distinct_names(self) -> Self:
        # A promotion moves the aliases one after the other: with two of one name it would undo its own first move.
        aliases = (self.candidate, self.champion, self.previous)
        if len(set(aliases)) < len(aliases):
            raise ValueError(f"candidate, champion and previous must be three different aliases, found {aliases}")
        for path in self.tracked:
            for other in self.tracked:
                if path != other and PurePosixPath(other).is_relative_to(path):
                    raise ValueError(f"tracked: {other} lies in {path}; DVC keeps each file behind one pointer")
        if len(set(self.tracked)) < len(self.tracked):
            raise ValueError("tracked: a folder is named twice")
        return self
