"""The record of a release: what it says, its canonical bytes, and the sha256 of these, which is the release's id.

Knows neither where the facts come from nor what else lies in the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gme_data.digests import canonical_json, sha256_bytes
from gme_data.errors import FoundryError
from gme_data.paths import BelowPath
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json, read_regular

RECORD = "record.json"
ID = "record.sha256"


_LARGEST = 2**28
"""Bytes of a record, which names each file of the model."""


class BundleFile(Frozen):
    """A file of the bundle that is not made from the record."""

    path: BelowPath
    """Relative to the bundle, and below it."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of its bytes."""
    bytes: int = Field(ge=0)
    """Its size."""

    @field_validator("path")
    @classmethod
    def _is_below(cls, path: str) -> str:
        if not path.isprintable():
            raise ValueError(f"{path!r} can't be printed")
        return path


class Source(Frozen):
    """The code."""

    commit: str
    """Git commit; the tree was clean."""
    lock: str
    """sha256 of ``requirements.txt``, which pins every package."""
    steps: dict[str, str]
    """Digest of the source behind each step of the run."""


class Dataset(Frozen):
    """A dataset that the run made or used."""

    step: str
    """The step that made it."""
    path: str
    """Its folder in the workspace."""
    content: str
    """sha256 of names and bytes of its files."""
    dvc: str
    """DVC's name of the tracked folder it lies in; empty if DVC does not track it."""
    bytes: int
    """Size of its files."""
    licences: tuple[str, ...]
    """SPDX expressions of its items."""


class TaskResult(Frozen):
    """A score."""

    name: str
    """Of the task."""
    task_type: str
    """What asks and what is found, e.g. ``T->IT``."""
    metric: str
    """The headline metric."""
    value: float
    """Its mean over the queries, 0..1."""
    interval: tuple[float, float]
    """95 % bootstrap interval."""
    queries: int
    """Number of queries."""
    pool: int
    """Number of documents searched."""


class ReleaseRecord(Frozen):
    """What a release says of itself."""

    schema_version: int = 1
    """Of this form."""
    name: str
    """Of the model in the registry."""
    tag: str
    """Of the release, e.g. ``v1``."""
    version: str
    """In the registry."""
    model: str
    """Content digest of the model."""
    licence: str
    """SPDX expression for the weights."""
    base_model: dict[str, Any]
    """What training started from."""
    source: Source
    """Commit, lock and code digests."""
    config: dict[str, Any]
    """The resolved configuration of the pipeline."""
    seeds: dict[str, int]
    """Every seed in the configuration, by its path."""
    datasets: tuple[Dataset, ...]
    """In the order of the chain."""
    instructions: dict[str, str | None]
    """Instruction put before each query, by task."""
    environment: dict[str, str]
    """Interpreter, platform and the versions of what computed."""
    evaluation: str
    """Digest of what was asked."""
    overall: float
    """Mean over all tasks."""
    types: dict[str, float]
    """Mean of each task type."""
    tasks: tuple[TaskResult, ...]
    """Each score."""
    verdict: dict[str, Any]
    """The gate's decision with every check."""
    runs: dict[str, str]
    """Ids of the runs in the tracker and elsewhere."""
    inputs: dict[str, dict[str, str]]
    """Content digests of the inputs of each step."""
    files: tuple[BundleFile, ...]
    """Everything in the bundle besides record, cards, bill of materials and signature."""


def canonical_bytes(record: ReleaseRecord) -> bytes:
    """One text per record: sorted keys, no spaces, a newline at the end."""
    return (canonical_json(record.model_dump(mode="json")) + "\n").encode()


def release_id(record: ReleaseRecord) -> str:
    """sha256 of the canonical bytes."""
    return sha256_bytes(canonical_bytes(record))


def write_record(folder: Path, record: ReleaseRecord) -> str:
    """Write ``record.json`` and ``record.sha256``; returns the id."""
    (folder / RECORD).write_bytes(canonical_bytes(record))
    (folder / ID).write_text(release_id(record) + "\n", encoding="ascii")
    return release_id(record)


def read_record(folder: Path) -> ReleaseRecord:
    """The record of a bundle. Whether it is the one that was signed is told by `record_problems` and the signature.

    Raises:
        FoundryError: It is missing or has not the form of a record.
    """
    path = folder / RECORD
    try:
        return read_json(path, ReleaseRecord, max_bytes=_LARGEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FoundryError(f"{folder} is no release: {RECORD} is missing.", hint="Give a folder in dist/.") from error
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint="Fetch the release again.") from error


def record_problems(folder: Path, record: ReleaseRecord) -> list[str]:
    """What shows that the record was edited: bytes that are not canonical, or another id than the one written down."""
    problems = []
    if read_regular(folder / RECORD, _LARGEST) != canonical_bytes(record):
        problems.append(f"{RECORD}: edited, its bytes are not canonical")
    try:
        noted = read_regular(folder / ID)
    except (OSError, StructureError):
        noted = b"nothing"
    if noted != (release_id(record) + "\n").encode():
        problems.append(
            f"{RECORD}: its sha256 is {release_id(record)[:12]}, {ID} says {noted[:12].decode('ascii', 'replace')}"
        )
    return problems
