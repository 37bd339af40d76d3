"""Checks before the first step what the last one will need: tracker, artifacts, DVC remote, and the gate's policy.

Each check either returns what it found or raises what the last step would raise. A tracking server that does not answer
is no reason to stop: the work goes on, and messages are sent later. Leaves no file behind.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.redact import redact
from gme_data.urls import file_url_path, sqlite_path
from gme_release.config import ReleaseConfig
from gme_release.dvc.config import remote_name, remote_url
from gme_release.dvc.object_store import remote_folder
from gme_release.errors import one_line
from gme_release.gate.policy import load_policy
from gme_release.settings import RecordSettings
from gme_release.tracking.schema import require_schema

MIN_FREE_BYTES = 2**30
"""Free space that is expected on each disk of records or bytes: one small run, with its models."""
_GIB = 2**30
_DRIVERS = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgresql+psycopg": ("psycopg",),
    "postgresql+psycopg2": ("psycopg2",),
}
"""Scheme of a tracker -> modules of which one is needed."""
_DVC_MODULES = {"s3": "dvc_s3", "gs": "dvc_gs"}
_MLFLOW_MODULES = {
    "s3": "boto3",
    "gs": "google.cloud.storage",
    "wasbs": "azure.storage.blob",
    "abfss": "azure.storage.filedatalake",
}
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "dvc_s3": "dvc-s3",
    "dvc_gs": "dvc-gs",
    "google.cloud.storage": "google-cloud-storage",
    "azure.storage.blob": "azure-storage-blob",
    "azure.storage.filedatalake": "azure-storage-file-datalake",
}
"""Module -> package to install, where the names differ."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of one thing that a run needs at its end.

    Attributes:
        what: Name of the thing: ``tracker``, ``artifacts``, ``remote``, ``policy``, ``tracked`` or ``suites``.
        text: What was found, for people.
        error: Why a run would fail; None if nothing suggests it.
    """

    what: str
    text: str
    error: FoundryError | None = None


def check_release(workspace: Path, config: ReleaseConfig) -> Iterator[Readiness]:
    """Yields the readiness of each thing that versioning and registering will need."""
    checks: tuple[tuple[str, Callable[[Path, ReleaseConfig], str]], ...] = (
        ("tracker", _tracker),
        ("artifacts", _artifacts),
        ("remote", _remote),
        ("policy", _policy),
    )
    for what, check in checks:
        try:
            yield Readiness(what, check(workspace, config))
        except FoundryError as error:
            yield Readiness(what, str(error), error)  # and go on: all reasons at once


def _tracker(workspace: Path, _: ReleaseConfig) -> str:
    """Returns where runs and models are recorded.

    Raises:
        FoundryError: A setting is wrong, a driver is missing, the file can't be written, or the database is of another
            version or program.
    """
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    settings = RecordSettings.from_environment()
    uri = settings.tracking_uri(workspace)
    scheme = uri.partition("://")[0]
    if scheme.startswith("http"):
        return redact(uri)
    path = sqlite_path(uri) if scheme == "sqlite" else None
    if path is not None:
        _require_database(path, settings)
    elif not any(_is_installed(module) for module in _DRIVERS[scheme]):
        raise _missing("GME_MLFLOW_URI", f"{scheme}://", _DRIVERS[scheme][0])
    # Nothing to look at: MLflow makes the tables when the run is recorded.
    if path is not None and not path.exists():
        return f"{path} will be made"
    try:
        require_schema(uri)
    except ArgumentError as error:
        raise FoundryError(f"GME_MLFLOW_URI: {uri} can't be read as an address: {one_line(error)}") from error
    except SQLAlchemyError as error:
        if path is None:  # a server may be down for a while; a file stays unreadable
            return f"{redact(uri)} does not answer now, and will be told later: {one_line(error)}"
        raise FoundryError(
            f"The records in {path} can't be read: {one_line(error)}",
            hint="Restore the file, or move it away: an empty one is made.",
            exit_code=1,
        ) from error
    return redact(uri)


def _artifacts(workspace: Path, config: ReleaseConfig) -> str:
    """Returns where MLflow keeps artifacts.

    Raises:
        FoundryError: A folder can't be written, or the package for the store is not installed.
    """
    location = RecordSettings.from_environment().artifact_location(workspace, config.experiment)
    if location is None:
        return "where the tracking server decides"
    scheme = location.partition("://")[0]
    if scheme == "file":
        require_disk_space(file_url_path(location), "MLflow's artifacts (GME_ARTIFACT_ROOT)")
    elif not _is_installed(_MLFLOW_MODULES[scheme]):
        raise _missing("GME_ARTIFACT_ROOT", f"{scheme}://", _MLFLOW_MODULES[scheme])
    return location


def _remote(workspace: Path, config: ReleaseConfig) -> str:
    """Returns where DVC pushes bytes.

    Raises:
        FoundryError: There is no such remote, its folder can't be written or lies in what is tracked, or the
            package for it is not installed.
    """
    url = remote_url(workspace, config)
    field = "GME_DVC_REMOTE" if RecordSettings.from_environment().dvc_remote else f"release.remote={config.remote}"
    folder = remote_folder(workspace, url)
    if folder is None:
        scheme = url.partition("://")[0]
        if not _is_installed(_DVC_MODULES[scheme]):
            raise _missing(field, f"{scheme}://", _DVC_MODULES[scheme])
        return f"{remote_name(config)}: {redact(url)}"
    # Each push would add the remote's own objects to what is pushed.
    for tracked in config.tracked:
        if folder.is_relative_to((workspace / tracked).resolve()):
            raise FoundryError(
                f"{field}: the remote {folder} lies in {tracked}, which is pushed to it.",
                hint="Give it a folder outside of what release.tracked names.",
            )
    require_disk_space(folder, f"the DVC remote ({field})")
    return f"{remote_name(config)}: {folder}"


def _policy(workspace: Path, config: ReleaseConfig) -> str:
    """Returns the conditions of the gate.

    Raises:
        FoundryError: The policy is missing, or a field is bad.
    """
    load_policy(config.promotion, workspace)
    return f"{config.promotion}, {len(config.floors) + len(config.type_floors)} floors of its own"


def require_disk_space(folder: Path, what: str) -> None:
    """Checks that a folder, which may not exist yet, can be written, and that its disk has free space.

    Args:
        folder: The folder.
        what: What it is for; errors name it.

    Raises:
        FoundryError: It can't be written, or less than `MIN_FREE_BYTES` are free.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise FoundryError(
            f"{folder} can't be made for {what}: {existing} is a file.", hint="Give another folder.", exit_code=1
        )
    try:
        # Tried, not asked: the permission bits of a folder know nothing of root, read-only disks and quotas.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise FoundryError(
            f"{folder} can't be written for {what}: {error.strerror}.",
            hint=f"Make {existing} writable for this user, or give another folder.",
            exit_code=1,
        ) from error
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        raise FoundryError(
            f"Too little room for {what} on the disk of {folder}: {free / _GIB:.2f} GiB are free, "
            f"{MIN_FREE_BYTES / _GIB:.0f} GiB is expected.",
            hint="Free some space, or give a folder on a larger disk.",
            exit_code=1,
        )


def _require_database(path: Path, settings: RecordSettings) -> None:
    """Checks that a sqlite file can be written, or made."""
    if settings.mlflow_uri is not None and not path.parent.is_dir():
        raise FoundryError(
            f"GME_MLFLOW_URI: there is no folder {path.parent} to make {path.name} in.", hint="Make the folder."
        )
    require_disk_space(path.parent, "MLflow's database (GME_MLFLOW_URI)")
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise FoundryError(
            f"MLflow's database {path} can't be read and written.", hint="Make it writable for this user.", exit_code=1
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # raised for a missing parent package
        return False


def _missing(field: str, what: str, module: str) -> FoundryError:
    package = _PACKAGES.get(module, module)
    return FoundryError(f"{field}: {what} needs the package {package}.", hint=f"pip install '{package}'")
