"""Names that MLflow and DVC will take, as types of configuration fields: refused where they are read, not hours later.

The rules are those of `mlflow.utils.validation`, repeated here because importing MLflow takes seconds; a test compares
the two. A rule is narrower where an address (``models:/NAME@ALIAS``) could not hold a name that MLflow takes.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

MAX_MODEL_NAME = 200
"""Bytes. MLflow's column takes 256; ``dist/<name>-<tag>`` must be the name of a folder too, of at most 255 bytes."""
MAX_EXPERIMENT_NAME = 256
"""Characters. MLflow allows 500, but the column of its Postgres database takes 256."""
MAX_ALIAS = 255
"""Characters."""
MAX_TAG_NAME = 250
"""Characters."""
_NOT_IN_MODEL_NAMES = "/:.%\"'"
"""Characters that MLflow refuses in the name of a registered or of a logged model; ours have one name."""
_NOT_IN_ADDRESSES = "@?#\\"
_ALIAS = re.compile(r"[\w-]+")
_VERSION = re.compile(r"[vV]\d+")
_TAG_NAME = re.compile(r"[/\w.\- :]+")
_REMOTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ENVIRONMENT_REMOTE = "gme"
"""Name of the DVC remote that is made for ``GME_DVC_REMOTE``."""


def check_model_name(name: str) -> str:
    """Returns `name`, if a model may be registered under it.

    Raises:
        ValueError: MLflow refuses it, or it can't stand in the address of a model.
    """
    bad = sorted(set(name) & set(_NOT_IN_MODEL_NAMES + _NOT_IN_ADDRESSES))
    if bad or not name.isprintable():
        characters = " ".join(bad) or "characters that can't be printed"
        raise ValueError(
            f"a model of this name can't be registered: no {characters} in it; use letters, digits, '-' and '_', "
            "such as gme-tiny"
        )
    if not name or name != name.strip():
        raise ValueError("expected a name without spaces at its ends, such as gme-tiny")
    if len(name.encode()) > MAX_MODEL_NAME:
        raise ValueError(f"expected at most {MAX_MODEL_NAME} bytes, found {len(name.encode())}")
    return name


def check_alias(alias: str) -> str:
    """Returns `alias`, if a version of a model may carry it.

    Raises:
        ValueError: MLflow refuses it.
    """
    if not _ALIAS.fullmatch(alias) or len(alias) > MAX_ALIAS:
        raise ValueError(
            f"expected 1 to {MAX_ALIAS} letters, digits, '-' and '_', which is what MLflow takes as an alias"
        )
    if alias.lower() == "latest" or _VERSION.fullmatch(alias):
        raise ValueError("MLflow keeps 'latest' and v1, v2, ... for itself; choose another alias")
    return alias


def check_experiment_name(name: str) -> str:
    """Returns `name`, if an experiment may be called so.

    Raises:
        ValueError: MLflow or the database behind it refuses it.
    """
    if not name.strip() or not name.isprintable() or len(name) > MAX_EXPERIMENT_NAME:
        raise ValueError(f"expected 1 to {MAX_EXPERIMENT_NAME} characters that can be printed")
    return name


def check_remote_name(name: str) -> str:
    """Returns `name`, if a DVC remote may be called so.

    Raises:
        ValueError: It can't stand in a section of DVC's configuration, or is the one that we write ourselves.
    """
    if not _REMOTE.fullmatch(name):
        raise ValueError("expected letters, digits, '-', '_' and '.', such as store")
    if name == ENVIRONMENT_REMOTE:
        raise ValueError(f"'{ENVIRONMENT_REMOTE}' is the remote that GME_DVC_REMOTE makes; choose another name")
    return name


def check_tracked_folder(path: str) -> str:
    """Returns `path`, if it names a folder below the workspace that DVC can keep and a tag of MLflow can name.

    Raises:
        ValueError: It leads out of the workspace, or a tag can't hold it.
    """
    if not path or path != str(PurePosixPath(path)) or path == "." or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("expected a folder below the workspace, written without '.', '..' and a '/' at its ends")
    # MLflow takes only names that are normal paths, because its file store makes files of them.
    tag = f"gme.dvc.{path}"
    if not _TAG_NAME.fullmatch(tag) or len(tag) > MAX_TAG_NAME or posixpath.normpath(tag) != tag:
        raise ValueError(
            "the run's tag can't name this folder: use letters, digits, '-', '_', '.', ':' and spaces, "
            f"{MAX_TAG_NAME - len('gme.dvc.')} at most"
        )
    return path


ModelName = Annotated[str, AfterValidator(check_model_name)]
Alias = Annotated[str, AfterValidator(check_alias)]
ExperimentName = Annotated[str, AfterValidator(check_experiment_name)]
RemoteName = Annotated[str, AfterValidator(check_remote_name)]
TrackedFolderName = Annotated[str, AfterValidator(check_tracked_folder)]
