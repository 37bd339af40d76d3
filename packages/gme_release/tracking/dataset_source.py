"""The source of a run's dataset, as MLflow records it: a folder behind a DVC pointer.

Knows how to pull the bytes; the digests themselves are computed by `gme_data.manifest` and DVC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.meta_dataset import MetaDataset

from gme_release.dvc.tracked_folders import VersionedOutputs
from gme_release.dvc.versioning import pull_folder


class DvcSource(DatasetSource):
    """A folder inside a DVC-tracked one.

    Args:
        path: The folder, relative to the workspace.
        tracked: The tracked folder it lies in.
        md5: DVC's name of the tracked folder's content.
        remote: URL of the remote that holds the bytes, as configured.
    """

    def __init__(self, path: str, tracked: str, md5: str, remote: str) -> None:
        self.path, self.tracked, self.md5, self.remote = path, tracked, md5, remote

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self) -> Path:
        """Pulls the bytes into the workspace, which is the current folder, and returns the dataset's folder."""
        workspace = Path()
        pull_folder(workspace, self.tracked)
        return workspace / self.path

    @staticmethod
    def _can_resolve(raw_source: object) -> bool:
        return False  # it is made with all its fields, never guessed from a string

    @classmethod
    def _resolve(cls, raw_source: object) -> DvcSource:
        raise TypeError("A DVC source is made with all its fields, never resolved from a string.")

    def to_dict(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"path": self.path, "tracked": self.tracked, "md5": self.md5, "remote": self.remote}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> DvcSource:
        """Inverts `to_dict`."""
        return cls(**source_dict)


def dataset_at(path: str, versions: VersionedOutputs) -> MetaDataset | None:
    """Returns the dataset in folder `path` (relative to the workspace); None if DVC does not track it.

    Its digest is DVC's name of the tracked folder: MLflow takes at most 36 characters, so the sha256 goes into tags.
    """
    folder = versions.of(path)
    if folder is None:  # its bytes are nowhere but in this workspace
        return None
    source = DvcSource(path, folder.path, folder.md5, versions.remote)
    return MetaDataset(source, name=path, digest=folder.md5)  # type: ignore[abstract]  # complete at run time
