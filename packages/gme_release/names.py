"""Names that MLflow and DVC will take, as types of configuration fields: refused where they are read, not hours later.

The rules are those of `mlflow.utils.validation`, written again because importing MLflow takes seconds; a test compares
the two. Where MLflow would take a name that an address of ours then could not hold (``models:/NAME@ALIAS``), the rule
is narrower.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

LONGEST_MODEL_NAME = 200
"""MLflow's column has 256; ``dist/<name>-<tag>`` must be the name of a folder as well, of at most 255 bytes."""
LONGEST_EXPERIMENT_NAME = 256
"""What fits the column of a Postgres database; sqlite alone would take MLflow's 500."""
LONGEST_ALIAS = 255
LONGEST_KEY = 250
_NOT_IN_MODEL_NAMES = "/:.%\"'"  # of a registered model or a logged one, which has the same name here
_NOT_IN_ADDRESSES = "@?#\\"
_ALIAS = re.compile(r"[\w-]+")
_VERSION = re.compile(r"[vV]\d+")
_KEY = re.compile(r"[/\w.\- :]+")
_REMOTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ENVIRONMENT_REMOTE = "gme"
"""Name of the DVC remote that ``GME_DVC_REMOTE`` makes."""


def check_model_name(name: str) -> str:
    """`name`, if a model may be registered under it.

    Raises:
        ValueError: MLflow refuses it, or it can't stand in the address of a model.
    """
    bad = sorted(set(name) & set(_NOT_IN_MODEL_NAMES + _NOT_IN_ADDRESSES))
    if bad or not name.isprintable():
        shown = " ".join(bad) or "characters that can't be printed"
        raise ValueError(
            f"a model of this name can't be registered: no {shown} in it; use letters, digits, '-' and '_', "
            "such as gme-tiny"
        )
    if not name or name != name.strip():
        raise ValueError("expected a name without spaces at its ends, such as gme-tiny")
    if len(name.encode()) > LONGEST_MODEL_NAME:
        raise ValueError(f"expected at most {LONGEST_MODEL_NAME} bytes, found {len(name.encode())}")
    return name


def check_alias(alias: str) -> str:
    """`alias`, if a version of a model may carry it.

    Raises:
        ValueError: MLflow refuses it.
    """
    if not _ALIAS.fullmatch(alias) or len(alias) > LONGEST_ALIAS:
        raise ValueError(
            f"expected 1 to {LONGEST_ALIAS} letters, digits, '-' and '_', which is what MLflow takes as an alias"
        )
    if alias.lower() == "latest" or _VERSION.fullmatch(alias):
        raise ValueError("MLflow keeps 'latest' and v1, v2, ... for itself; choose another alias")
    return alias


def check_experiment_name(name: str) -> str:
    """`name`, if an experiment may be called so.

    Raises:
        ValueError: MLflow or the database behind it refuses it.
    """
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_EXPERIMENT_NAME:
        raise ValueError(f"expected 1 to {LONGEST_EXPERIMENT_NAME} characters that can be printed")
    return name


def check_remote_name(name: str) -> str:
    """`name`, if a DVC remote may be called so.

    Raises:
        ValueError: It can't stand in a section of DVC's configuration, or is the one that we write ourselves.
    """
    if not _REMOTE.fullmatch(name):
        raise ValueError("expected letters, digits, '-', '_' and '.', such as store")
    if name == ENVIRONMENT_REMOTE:
        raise ValueError(f"'{ENVIRONMENT_REMOTE}' is the remote that GME_DVC_REMOTE makes; choose another name")
    return name


def check_tracked(path: str) -> str:
    """`path`, if it names a folder below the workspace that DVC can keep and a tag of MLflow can name.

    Raises:
        ValueError: It leads out of the workspace, or a tag can't hold it.
    """
    if not path or path != str(PurePosixPath(path)) or path == "." or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("expected a folder below the workspace, written without '.', '..' and a '/' at its ends")
    tag = f"gme.dvc.{path}"
    if not _KEY.fullmatch(tag) or len(tag) > LONGEST_KEY or posixpath.normpath(tag) != tag:
        raise ValueError(
            "the run's tag can't name this folder: use letters, digits, '-', '_', '.', ':' and spaces, "
            f"{LONGEST_KEY - len('gme.dvc.')} at most"
        )
    return path


ModelName = Annotated[str, AfterValidator(check_model_name)]
Alias = Annotated[str, AfterValidator(check_alias)]
ExperimentName = Annotated[str, AfterValidator(check_experiment_name)]
RemoteName = Annotated[str, AfterValidator(check_remote_name)]
TrackedFolderName = Annotated[str, AfterValidator(check_tracked)]
