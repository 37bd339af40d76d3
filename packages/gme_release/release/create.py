"""Make a release of a registered version: facts, record, cards, bill of materials, signature, in one rename.

The registry says what passed the gate; nothing that did not can be released. Makes no git tag and no commit.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from gme_data.errors import FoundryError
from gme_release.champion import weights_of
from gme_release.config import ReleaseConfig
from gme_release.query_scores import evaluation_digest
from gme_release.records import FLOW_RUN
from gme_release.registry import numbered, version_of
from gme_release.release.bundle import fill, write_made
from gme_release.release.gather import Gathered, gather, run_of, seeds_in
from gme_release.release.record import BundleFile, ReleaseRecord, Source, TaskResult, read_record, write_record
from gme_release.release.signing import public_half, sign
from gme_release.release.source import CHECKOUT, clean_commit, lock_digest, lock_of, machine
from gme_release.settings import RecordSettings
from gme_release.tracking import RECORD, explained, open_client

_TAG = re.compile(r"v\d+(\.\d+){0,2}([a-z0-9.-]*)")
_TINY = "the first layers of SmolLM2-135M-Instruct (Apache-2.0) with a vision tower of our own"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was made.

    Attributes:
        folder: The bundle.
        id: sha256 of the record's canonical bytes.
        git_tag: What the commit should be tagged with.
    """

    folder: Path
    id: str
    git_tag: str
    record: ReleaseRecord


def create_release(
    workspace: Path,
    config: ReleaseConfig,
    tag: str,
    key: Path,
    *,
    version: str | None = None,
    checkout: Path = CHECKOUT,
    same_code: Callable[[Mapping[str, str]], None] = lambda _steps: None,
    licence: str = "Apache-2.0",
) -> Release:
    """Bundle a version of the model, the champion by default, in ``dist/<name>-<tag>/``.

    Raises:
        FoundryError: A bad tag, a release of that tag, a dirty tree, no champion, a gate that did not open, damaged
            files or data, or what `same_code` says of the code digests of the run's steps. Nothing was written.
    """
    if not _TAG.fullmatch(tag):
        raise FoundryError(f"'{tag}' is no tag of a release.", hint="Use v1, v1.2 or v1.2.0.")
    folder = workspace / "dist" / f"{config.model_name}-{tag}"
    if folder.exists():
        raise FoundryError(f"{folder} exists; a release is never made over.", hint="Give the next tag.")
    RecordSettings.from_environment().require_records(workspace)
    public_half(key)  # a bad key is told before the work
    commit = clean_commit(checkout)
    folder.parent.mkdir(exist_ok=True)
    with (
        explained(workspace),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".part-{os.getpid()}-") as scratch,
    ):
        part, facts_home = Path(scratch) / "bundle", Path(scratch) / "facts"
        part.mkdir()
        facts_home.mkdir()
        client = open_client(workspace)
        found = _chosen(client, config, version)
        facts = gather(client, found, run_of(client, found, same_code), workspace, facts_home)
        _require_open(facts)
        weights, digest = weights_of(client, facts.version, workspace)
        files = fill(part, weights, lock_of(checkout), facts_home / "report" / "scores.json")
        source = Source(
            commit=commit,
            lock=lock_digest(checkout),
            steps={name: manifest.code for name, manifest in facts.manifests.items()},
        )
        record = _record(config.model_name, tag, digest, licence, facts, source, files)
        release_id = write_record(part, record)
        write_made(part, read_record(part))  # as who verifies reads it: the order of fields is that of the file
        sign(part, key)
        shutil.move(part, folder)
    return Release(folder, release_id, f"{config.model_name}@{_semantic(tag)}", record)


def _semantic(tag: str) -> str:
    """`tag` with three numbers, as `dvc artifacts get NAME --rev TAG` reads the tags of a repository.

    >>> _semantic("v1")
    'v1.0.0'
    """
    numbers, rest = re.fullmatch(r"v([\d.]*\d)(.*)", tag).groups()  # type: ignore[union-attr]
    return "v" + ".".join([*numbers.split("."), "0", "0"][:3]) + rest


def _chosen(client: MlflowClient, config: ReleaseConfig, version: str | None) -> ModelVersion:
    name = config.model_name
    found = numbered(client, name, version) if version else version_of(client, name, config.champion)
    if found is None:
        raise FoundryError(
            f"There is no champion of {name} to release.",
            hint="`gme pipeline` makes one; `gme promote VERSION` chooses one; --version releases another.",
        )
    return found


def _require_open(facts: Gathered) -> None:
    if not facts.verdict.get("passed"):
        version, reasons = facts.version, facts.verdict.get("reasons")
        raise FoundryError(f"Version {version.version} of {version.name} did not pass the gate: {reasons}.")


def _record(
    name: str, tag: str, digest: str, licence: str, facts: Gathered, source: Source, files: tuple[BundleFile, ...]
) -> ReleaseRecord:
    manifests, run = facts.manifests, facts.run
    made_by = next(manifest for manifest in manifests.values() if manifest.content == digest)
    return ReleaseRecord(
        name=name,
        tag=tag,
        version=str(facts.version.version),
        model=digest,
        licence=licence,
        base_model=_base(facts.config),
        source=source,
        config=facts.config,
        seeds=seeds_in(facts.config),
        datasets=facts.datasets,
        instructions=facts.instructions,
        environment={**machine(), **made_by.versions},
        evaluation=evaluation_digest(manifests, "evaluate"),
        overall=facts.scores["overall"],
        types=facts.scores["types"],
        tasks=tuple(_task(task) for task in facts.scores["tasks"]),
        verdict=facts.verdict,
        runs={
            "mlflow": str(run.info.run_id),
            "record": run.data.tags[RECORD],
            **{name: value for name, value in sorted(run.data.tags.items()) if name.startswith(FLOW_RUN)},
        },
        inputs={step: manifest.inputs for step, manifest in manifests.items()},
        files=files,
    )


def _task(task: Mapping[str, Any]) -> TaskResult:
    return TaskResult(**{name: task[name] for name in TaskResult.model_fields})


def _base(config: Mapping[str, Any]) -> dict[str, Any]:
    stage = config.get("stage_1", {})
    base = stage.get("base")
    if base:
        return {"name": str(base["model"]), "hub": str(base["model"]), "settings": base}
    return {"name": _TINY, "hub": "HuggingFaceTB/SmolLM2-135M-Instruct", "settings": stage.get("model", {})}
