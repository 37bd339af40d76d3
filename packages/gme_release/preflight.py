"""What the last step of a run will need, looked at before the first: where records and bytes go, and the gate's policy.

Each check either says what it found or raises what the last step would. A tracking server that does not answer is no
reason to stop: the work goes on and it is told later. Leaves nothing behind.
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
from gme_release.dvc_config import local_folder, remote_name, remote_url
from gme_release.gate import load_policy
from gme_release.schema import require_schema
from gme_release.settings import RecordSettings
from gme_release.trouble import told

ROOM_BYTES = 2**30
"""What must be free on each disk that records or bytes go to: one small run, with its models."""
_GIB = 2**30
_DRIVERS = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgresql+psycopg": ("psycopg",),
    "postgresql+psycopg2": ("psycopg2",),
}
"""Scheme of a tracker -> modules of which one is needed."""
_DVC_PARTS = {"s3": "dvc_s3", "gs": "dvc_gs"}
_MLFLOW_PARTS = {
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
"""Module -> what to install where the two have other names."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """One thing that a run needs at its end.

    Attributes:
        what: Its name: ``tracker``, ``artifacts``, ``remote``, ``policy``, ``tracked`` or ``suites``.
        text: What was found.
        error: Why a run would fail; None if nothing says so.
    """

    what: str
    text: str
    error: FoundryError | None = None


def check_release(workspace: Path, config: ReleaseConfig) -> Iterator[Readiness]:
    """Look at each thing that versioning and registering will need."""
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
            yield Readiness(what, str(error), error)


def _tracker(workspace: Path, _: ReleaseConfig) -> str:
    """Where runs and models are recorded.

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
    if path is not None and not path.exists():
        return f"{path} will be made"
    try:
        require_schema(uri)
    except ArgumentError as error:
        raise FoundryError(f"GME_MLFLOW_URI: {uri} can't be read as an address: {told(error)}") from error
    except SQLAlchemyError as error:
        if path is None:
            return f"{redact(uri)} does not answer now, and will be told later: {told(error)}"
        raise FoundryError(
            f"The records in {path} can't be read: {told(error)}",
            hint="Restore the file, or move it away: an empty one is made.",
            exit_code=1,
        ) from error
    return redact(uri)


def _artifacts(workspace: Path, config: ReleaseConfig) -> str:
    """Where MLflow keeps files.

    Raises:
        FoundryError: A folder can't be written, or what talks to the store is not installed.
    """
    location = RecordSettings.from_environment().artifact_location(workspace, config.experiment)
    if location is None:
        return "where the tracking server decides"
    scheme = location.partition("://")[0]
    if scheme == "file":
        require_room(file_url_path(location), "MLflow's artifacts (GME_ARTIFACT_ROOT)")
    elif not _is_installed(_MLFLOW_PARTS[scheme]):
        raise _missing("GME_ARTIFACT_ROOT", f"{scheme}://", _MLFLOW_PARTS[scheme])
    return location


def _remote(workspace: Path, config: ReleaseConfig) -> str:
    """Where DVC pushes bytes.

    Raises:
        FoundryError: There is no such remote, its folder can't be written or lies in what is tracked, or what talks to
            it is not installed.
    """
    url = remote_url(workspace, config)
    field = "GME_DVC_REMOTE" if RecordSettings.from_environment().dvc_remote else f"release.remote={config.remote}"
    folder = local_folder(workspace, url)
    if folder is None:
        scheme = url.partition("://")[0]
        if not _is_installed(_DVC_PARTS[scheme]):
            raise _missing(field, f"{scheme}://", _DVC_PARTS[scheme])
        return f"{remote_name(config)}: {redact(url)}"
    for tracked in config.tracked:
        if folder.is_relative_to((workspace / tracked).resolve()):
            raise FoundryError(
                f"{field}: the remote {folder} lies in {tracked}, which is pushed to it.",
                hint="Give it a folder outside of what release.tracked names.",
            )
    require_room(folder, f"the DVC remote ({field})")
    return f"{remote_name(config)}: {folder}"


def _policy(workspace: Path, config: ReleaseConfig) -> str:
    """By what the gate judges.

    Raises:
        FoundryError: The policy is missing, or a field is bad.
    """
    load_policy(config.promotion, workspace)
    return f"{config.promotion}, {len(config.floors) + len(config.type_floors)} floors of its own"


def require_room(folder: Path, what: str) -> None:
    """See that a folder that need not be there yet can be written, and that its disk has room.

    Raises:
        FoundryError: Names the folder and what it is for; what is free and what was expected.
    """
    there = folder
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise FoundryError(
            f"{folder} can't be made for {what}: {there} is a file.", hint="Give another folder.", exit_code=1
        )
    try:
        # Asked by doing it: the permissions of a folder do not tell of root, read-only disks and quotas.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise FoundryError(
            f"{folder} can't be written for {what}: {error.strerror}.",
            hint=f"Make {there} writable for this user, or give another folder.",
            exit_code=1,
        ) from error
    free = shutil.disk_usage(there).free
    if free < ROOM_BYTES:
        raise FoundryError(
            f"Too little room for {what} on the disk of {folder}: {free / _GIB:.2f} GiB are free, "
            f"{ROOM_BYTES / _GIB:.0f} GiB is expected.",
            hint="Free some space, or give a folder on a larger disk.",
            exit_code=1,
        )


def _require_database(path: Path, settings: RecordSettings) -> None:
    """See that a sqlite file can be written, or made."""
    if settings.mlflow_uri is not None and not path.parent.is_dir():
        raise FoundryError(
            f"GME_MLFLOW_URI: there is no folder {path.parent} to make {path.name} in.", hint="Make the folder."
        )
    require_room(path.parent, "MLflow's database (GME_MLFLOW_URI)")
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise FoundryError(
            f"MLflow's database {path} can't be read and written.", hint="Make it writable for this user.", exit_code=1
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that the module would be in
        return False


def _missing(field: str, what: str, module: str) -> FoundryError:
    package = _PACKAGES.get(module, module)
    return FoundryError(f"{field}: {what} needs the package {package}.", hint=f"pip install '{package}'")
