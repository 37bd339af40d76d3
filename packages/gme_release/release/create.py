"""Makes a release of a registered version: facts, record, cards, bill of materials and signature, in one rename.

Only a version that passed the gate can be released. Makes no git tag and no commit.
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

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.gate.query_scores import evaluation_digest
from gme_release.registry.champion import local_weights
from gme_release.registry.versions import get_version, version_by_alias
from gme_release.release.bundle import copy_into_bundle, write_generated
from gme_release.release.gather import ReleaseFacts, find_run, gather, seeds_in
from gme_release.release.record import (
    BundleFile,
    ReleaseRecord,
    SourceRecord,
    TaskScoreRecord,
    read_record,
    write_record,
)
from gme_release.release.signing import public_half, sign
from gme_release.release.source import CHECKOUT, clean_commit, describe_platform, lock_digest, lock_file
from gme_release.settings import RecordSettings
from gme_release.tracking.client import open_client, tracker_errors
from gme_release.tracking.tags import FLOW_RUN, RECORD

_TAG = re.compile(r"v\d+(\.\d+){0,2}([a-z0-9.-]*)")
_TINY_BASE = "the first layers of SmolLM2-135M-Instruct (Apache-2.0) with a vision tower of our own"


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was made.

    Attributes:
        folder: Folder of the bundle.
        id: sha256 of the record's canonical bytes.
        git_tag: Tag to give the commit.
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
    require_same_code: Callable[[Mapping[str, str]], None] = lambda _steps: None,
    licence: str = "Apache-2.0",
) -> Release:
    """Bundles a version of the model, the champion by default, in ``dist/<name>-<tag>/``.

    Args:
        workspace: The workspace of the model.
        config: Names of model and aliases.
        tag: Tag of the release, such as ``v1``.
        key: Private key to sign with.
        version: Version of the model; None takes the champion.
        checkout: Checkout of the code; its commit goes into the record.
        require_same_code: Gets the code digests of the run's steps, and raises if the checkout has other code.
        licence: SPDX expression for the weights.

    Raises:
        FoundryError: The tag is malformed or taken, the tree is dirty, there is no champion, its gate did not open,
            files or data are damaged, or `require_same_code` raises it. Nothing is written then.
    """
    if not _TAG.fullmatch(tag):
        raise FoundryError(f"'{tag}' is no tag of a release.", hint="Use v1, v1.2 or v1.2.0.")
    folder = workspace / "dist" / f"{config.model_name}-{tag}"
    if folder.exists():
        raise FoundryError(f"{folder} exists; a release is never made over.", hint="Give the next tag.")
    # All that can be wrong without reading a run comes first.
    RecordSettings.from_environment().require_records(workspace)
    public_half(key)  # raises for a bad key before the work
    commit = clean_commit(checkout)
    folder.parent.mkdir(exist_ok=True)
    with (
        tracker_errors(workspace),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".part-{os.getpid()}-") as scratch,
    ):
        part, facts_home = Path(scratch) / "bundle", Path(scratch) / "facts"
        part.mkdir()
        facts_home.mkdir()
        client = open_client(workspace)
        name = config.model_name
        chosen = get_version(client, name, version) if version else version_by_alias(client, name, config.champion)
        if chosen is None:
            raise FoundryError(
                f"There is no champion of {name} to release.",
                hint="`gme pipeline` makes one; `gme promote VERSION` chooses one; --version releases another.",
            )
        facts = gather(client, chosen, find_run(client, chosen, require_same_code), workspace, facts_home)
        if not facts.verdict.get("passed"):
            reasons = facts.verdict.get("reasons")
            raise FoundryError(f"Version {chosen.version} of {name} did not pass the gate: {reasons}.")
        weights, digest = local_weights(client, facts.version, workspace)
        files = copy_into_bundle(part, weights, lock_file(checkout), facts_home / "report" / "scores.json")
        source = SourceRecord(
            commit=commit,
            lock=lock_digest(checkout),
            steps={name: manifest.code for name, manifest in facts.manifests.items()},
        )
        record = _record(config.model_name, tag, digest, licence, facts, source, files)
        release_id = write_record(part, record)
        write_generated(part, read_record(part))  # read back: verification renders it with the file's order of fields
        sign(part, key)
        shutil.move(part, folder)  # one rename, since scratch is in the same folder
    return Release(folder, release_id, f"{config.model_name}@{_semantic(tag)}", record)


def _semantic(tag: str) -> str:
    """Returns `tag` with three numbers, as `dvc artifacts get NAME --rev TAG` reads the tags of a repository.

    >>> _semantic("v1")
    'v1.0.0'
    """
    numbers, suffix = re.fullmatch(r"v([\d.]*\d)(.*)", tag).groups()  # type: ignore[union-attr]
    return "v" + ".".join([*numbers.split("."), "0", "0"][:3]) + suffix


def _record(
    name: str,
    tag: str,
    digest: str,
    licence: str,
    facts: ReleaseFacts,
    source: SourceRecord,
    files: tuple[BundleFile, ...],
) -> ReleaseRecord:
    manifests, run = facts.manifests, facts.run
    # The packages of the step that made the model, not those of this process.
    producer = next(manifest for manifest in manifests.values() if manifest.content == digest)
    return ReleaseRecord(
        name=name,
        tag=tag,
        version=str(facts.version.version),
        model=digest,
        licence=licence,
        base_model=_base_model(facts.config),
        source=source,
        config=facts.config,
        seeds=seeds_in(facts.config),
        datasets=facts.datasets,
        instructions=facts.instructions,
        environment={**describe_platform(), **producer.versions},
        evaluation=evaluation_digest(manifests, "evaluate"),
        overall=facts.scores["overall"],
        types=facts.scores["types"],
        tasks=tuple(
            TaskScoreRecord(**{name: task[name] for name in TaskScoreRecord.model_fields})
            for task in facts.scores["tasks"]
        ),
        verdict=facts.verdict,
        runs={
            "mlflow": str(run.info.run_id),
            "record": run.data.tags[RECORD],
            **{name: value for name, value in sorted(run.data.tags.items()) if name.startswith(FLOW_RUN)},
        },
        inputs={step: manifest.inputs for step, manifest in manifests.items()},
        files=files,
    )


def _base_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what training started from: a checkpoint of the hub, or the tiny model with its settings."""
    stage = config.get("stage_1", {})
    base = stage.get("base")
    if base:
        return {"name": str(base["model"]), "hub": str(base["model"]), "settings": base}
    return {"name": _TINY_BASE, "hub": "HuggingFaceTB/SmolLM2-135M-Instruct", "settings": stage.get("model", {})}
