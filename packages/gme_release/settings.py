"""Where records are kept, by the environment: ``GME_MLFLOW_URI``, ``GME_ARTIFACT_ROOT``, ``GME_DVC_REMOTE``.

Without them all records lie in the workspace. Addresses only: keys of S3 come from the usual ``AWS_*`` variables
(``AWS_ENDPOINT_URL`` for a store that is not Amazon's), and an address with credentials in it is refused, since
addresses are shown and stored. Knows neither MLflow nor DVC.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gme_data.errors import FoundryError
from gme_data.redact import has_credentials
from gme_data.urls import sqlite_path, sqlite_url

PREFIX = "GME_"
_DATABASE = Path("runs/mlflow/mlflow.db")
_ARTIFACTS = Path("runs/mlflow/artifacts")
_TRACKERS = ("sqlite", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "http", "https")
STORES = ("s3", "gs", "file")
"""Schemes of DVC remotes: those that DVC can push to and `gme_release.dvc.object_store` can read."""
_ARTIFACT_STORES = ("s3", "gs", "wasbs", "abfss", "file")
_CREDENTIALS = {
    "http": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or ~/.netrc",
    "postgresql": "PGPASSWORD or ~/.pgpass",
}
"""Prefix of a tracker's scheme -> where its credentials belong."""
_STORE_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's own tools read"


class RecordSettings(BaseSettings):
    """Addresses of tracker, artifacts and DVC remote; with None they lie in the workspace."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    mlflow_uri: str | None = None
    """Tracking server and registry: ``http(s)://...``, ``postgresql://...`` or ``sqlite:///...``."""
    artifact_root: str | None = None
    """Folder of artifacts and models of new experiments: a path, or ``s3://bucket/prefix``. With a tracking server and
    no root of our own, the server decides."""
    dvc_remote: str | None = None
    """Remote of datasets and checkpoints: a folder, or ``s3://bucket/prefix``."""
    tracker_wait: float = Field(60.0, ge=0, allow_inf_nan=False)
    """Seconds a registration waits for a tracker that does not answer."""

    @classmethod
    def from_environment(cls) -> Self:
        """Reads the environment.

        Raises:
            FoundryError: A variable has a bad value; the message has its name, and no password.
        """
        try:
            return cls()
        except ValidationError as error:
            # The chain is cut by `from None`: pydantic's error shows the value, which may have a password in it.
            lines = [f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()]
            raise FoundryError("\n".join(lines), hint="See docs/records.md.") from None

    @field_validator("mlflow_uri")
    @classmethod
    def _known_tracker(cls, value: str | None) -> str | None:
        scheme = value.partition("://")[0] if value and "://" in value else ""
        if value is not None and scheme not in _TRACKERS:
            raise ValueError(f"expected http(s)://, postgresql:// or sqlite:///, found {value}")
        for prefix, instead in _CREDENTIALS.items():
            if value is not None and scheme.startswith(prefix):
                refuse_credentials(value, instead)
        if value is not None and not _has_target(value):
            raise ValueError(f"expected a host, or for sqlite:/// a file, found {value}")
        return value

    @field_validator("artifact_root")
    @classmethod
    def _known_artifact_store(cls, value: str | None) -> str | None:
        return None if value is None else check_store(value, _ARTIFACT_STORES)

    @field_validator("dvc_remote")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        return None if value is None else check_store(value)

    def tracking_uri(self, workspace: Path) -> str:
        """Returns the address of tracker and registry, with the driver that is installed."""
        if self.mlflow_uri is None:
            return sqlite_url(local_database(workspace))
        scheme, _, address = self.mlflow_uri.partition("://")
        # To SQLAlchemy a scheme without a driver means psycopg2; the driver of version 3 must be named.
        if scheme == "postgresql" and importlib.util.find_spec("psycopg2") is None:
            return f"postgresql+psycopg://{address}"
        return self.mlflow_uri

    def artifact_location(self, workspace: Path, experiment: str) -> str | None:
        """Returns the folder of an experiment's artifacts, as a URI; None where the tracking server decides."""
        if self.artifact_root is not None:
            root = self.artifact_root
            uri = root if "://" in root else (workspace / root).resolve().as_uri()
            return f"{uri.rstrip('/')}/{quote(_folder_name(experiment))}"
        # A tracking server has a root of its own, which a client need not be able to reach.
        if self.mlflow_uri is not None and self.mlflow_uri.startswith("http"):
            return None
        return (workspace.resolve() / _ARTIFACTS / _folder_name(experiment)).as_uri()

    def has_records(self, workspace: Path) -> bool:
        """Returns whether there may be records: the tracker is elsewhere, or the workspace has a database."""
        return self.mlflow_uri is not None or local_database(workspace).exists()

    def require_records(self, workspace: Path) -> None:
        """Checks that there may be records, before a command would make a database in a folder that is no workspace.

        Raises:
            FoundryError: There are none.
        """
        if not self.has_records(workspace):
            raise FoundryError(
                f"No runs recorded in {workspace.resolve()}.", hint="Run `gme pipeline` first, or give its --workspace."
            )


def check_store(value: str, schemes: tuple[str, ...] = STORES) -> str:
    """Returns `value`, if it is a folder or an address with one of `schemes`.

    Raises:
        ValueError: It has another scheme, or credentials in the address.
    """
    if "://" in value and value.partition("://")[0] not in schemes:
        raise ValueError(f"expected a folder or one of {', '.join(f'{s}://' for s in schemes)}, found {value}")
    refuse_credentials(value, _STORE_CREDENTIALS)
    return value


def refuse_credentials(address: str, instead: str = _STORE_CREDENTIALS) -> None:
    """Checks that an address has no credentials.

    Raises:
        ValueError: It has; the message says where they belong `instead`.
    """
    if "://" in address and has_credentials(address):
        raise ValueError(f"keep credentials out of the address, which is shown and stored; give them by {instead}")


def _has_target(uri: str) -> bool:
    """Returns whether the address of a tracker names a host or a file."""
    if uri.startswith("sqlite"):
        return uri.startswith("sqlite:///") and sqlite_path(uri) is not None
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _folder_name(experiment: str) -> str:
    """Returns a folder name for an experiment, whose own name may lead elsewhere, such as ``../``."""
    return experiment.replace(".", "%2E") if experiment in (".", "..") else quote(experiment, safe="")


def local_database(workspace: Path) -> Path:
    """Returns the sqlite file of a workspace whose tracker is not elsewhere."""
    return workspace / _DATABASE
