"""The record of a release: its fields, its canonical bytes, and the sha256 of these, which is the release's id.

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
"""File of the record in a bundle."""
ID = "record.sha256"
"""File of the release's id in a bundle."""
_MAX_BYTES = 2**28
"""The most that is read of a record, which names each file of the model."""


class BundleFile(Frozen):
    """A file of the bundle that is not made from the record."""

    path: BelowPath
    """Path relative to the bundle."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of its bytes."""
    bytes: int = Field(ge=0)
    """Size in bytes."""

    @field_validator("path")
    @classmethod
    def _is_below(cls, path: str) -> str:
        # A path with control characters could hide what it names from a person who verifies the release.
        if not path.isprintable():
            raise ValueError(f"{path!r} can't be printed")
        return path


class SourceRecord(Frozen):
    """The code that made the release."""

    commit: str
    """Git commit; the tree was clean."""
    lock: str
    """sha256 of ``requirements.txt``, which pins every package."""
    steps: dict[str, str]
    """Digest of the source behind each step of the run."""


class DatasetRecord(Frozen):
    """A dataset that the run made or used."""

    step: str
    """The step that made it."""
    path: str
    """Folder, relative to the workspace."""
    content: str
    """sha256 of names and bytes of its files."""
    dvc: str
    """DVC's name of the tracked folder it lies in; empty if DVC does not track it."""
    bytes: int
    """Size of its files in bytes."""
    licences: tuple[str, ...]
    """SPDX expressions of its items."""


class TaskScoreRecord(Frozen):
    """A score of the model."""

    name: str
    """Name of the task."""
    task_type: str
    """Modalities of query and document, e.g. ``T->IT``."""
    metric: str
    """The headline metric."""
    value: float
    """Mean of the metric over the queries, 0..1."""
    interval: tuple[float, float]
    """95 % bootstrap interval."""
    queries: int
    """Number of queries."""
    pool: int
    """Number of documents searched."""


class ReleaseRecord(Frozen):
    """The content of ``record.json``."""

    schema_version: int = 1
    """Version of this schema."""
    name: str
    """Name of the model in the registry."""
    tag: str
    """Tag of the release, e.g. ``v1``."""
    version: str
    """Version of the model in the registry."""
    model: str
    """Content digest of the model."""
    licence: str
    """SPDX expression for the weights."""
    base_model: dict[str, Any]
    """What training started from."""
    source: SourceRecord
    """Commit, lock and code digests."""
    config: dict[str, Any]
    """The resolved configuration of the pipeline."""
    seeds: dict[str, int]
    """Every seed in the configuration, by its path."""
    datasets: tuple[DatasetRecord, ...]
    """Datasets in the order of the chain."""
    instructions: dict[str, str | None]
    """Instruction put before each query, by task."""
    environment: dict[str, str]
    """Interpreter, platform, and versions of the packages that computed."""
    evaluation: str
    """`gme_release.gate.query_scores.evaluation_digest` of the evaluation."""
    overall: float
    """Mean of the scores over all tasks."""
    types: dict[str, float]
    """Mean of the scores by task type."""
    tasks: tuple[TaskScoreRecord, ...]
    """Score of each task."""
    verdict: dict[str, Any]
    """The gate's decision with every check."""
    runs: dict[str, str]
    """Ids of the run in MLflow and in the orchestrator, and its record key."""
    inputs: dict[str, dict[str, str]]
    """Content digests of the inputs of each step."""
    files: tuple[BundleFile, ...]
    """All files of the bundle besides record, cards, bill of materials and signature."""


def canonical_bytes(record: ReleaseRecord) -> bytes:
    """Returns the record as JSON with sorted keys and no spaces, so that equal records have equal bytes."""
    return (canonical_json(record.model_dump(mode="json")) + "\n").encode()


def release_id(record: ReleaseRecord) -> str:
    """Returns the sha256 of the canonical bytes."""
    return sha256_bytes(canonical_bytes(record))


def write_record(folder: Path, record: ReleaseRecord) -> str:
    """Writes ``record.json`` and ``record.sha256``, and returns the id."""
    (folder / RECORD).write_bytes(canonical_bytes(record))
    (folder / ID).write_text(release_id(record) + "\n", encoding="ascii")
    return release_id(record)


def read_record(folder: Path) -> ReleaseRecord:
    """Returns the record of a bundle; `record_problems` and the signature tell whether it is the one that was signed.

    Raises:
        FoundryError: It is missing, or does not fit the schema.
    """
    path = folder / RECORD
    try:
        return read_json(path, ReleaseRecord, max_bytes=_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FoundryError(f"{folder} is no release: {RECORD} is missing.", hint="Give a folder in dist/.") from error
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint="Fetch the release again.") from error


def record_problems(folder: Path, record: ReleaseRecord) -> list[str]:
    """Returns what shows that the record was edited: bytes that are not canonical, or an id that differs from `ID`."""
    problems = []
    # Another encoding of the same content would have another id than the one that was signed.
    if read_regular(folder / RECORD, _MAX_BYTES) != canonical_bytes(record):
        problems.append(f"{RECORD}: edited, its bytes are not canonical")
    try:
        written_id = read_regular(folder / ID)
    except (OSError, StructureError):
        written_id = b"nothing"
    if written_id != (release_id(record) + "\n").encode():
        problems.append(
            f"{RECORD}: its sha256 is {release_id(record)[:12]}, {ID} says {written_id[:12].decode('ascii', 'replace')}"
        )
    return problems
