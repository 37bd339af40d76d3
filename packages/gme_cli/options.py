"""What the verbs share: the options --config, --workspace, --json, --dry-run, and how results are printed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

DEFAULT_CONFIG = Path("configs/tiny.yaml")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options of every verb."""

    config: Annotated[Path, Parameter(name=["--config", "-c"])] = DEFAULT_CONFIG
    """The pipeline file."""
    workspace: Path = Path()
    """The folder that holds data, checkpoints, runs and reports."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as JSON and nothing else on standard output."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Say what would be done, and do nothing."""


def say(text: str) -> None:
    """One line for people, on standard output."""
    sys.stdout.write(text + "\n")


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """The result for programs, on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
