"""Steps: plain functions that write a folder, run once per key, published by one rename.

A `Step` says what it takes and where it writes, so that order, plan and graph of a chain follow from its steps. With a
config and the outcomes of its inputs it is a `PlannedStep`, whose key is computed once and carried from there.

A step writes into a staging folder that belongs to its key. If the process dies, the next run finds the same folder and
goes on from what is in it. When the step returns, the files are listed, hashed and put on disk, the manifest is written
last, the scratch goes, and the folder is renamed into place. Same key and undamaged files: nothing is done. Knows no
orchestrator.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel

from gme_data.digests import code_digest, sha256_json
from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_data.journal import fsync_folder
from gme_data.manifest import (
    FileEntry,
    Manifest,
    content_digest,
    damage,
    list_files,
    read_manifest,
    require_no_strays,
    write_manifest,
)

STAGING = ".staging"
HISTORY = "history.jsonl"
"""The file in a step's log folder that records when a run of which key began and when it was published."""
_REPLACED = ".old"
_KEY_SHOWN = 16
_RECORDED_VERSIONS = ("torch", "transformers", "deepspeed", "faiss-cpu", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a running step gets besides config and inputs.

    Attributes:
        staging: The folder that it writes. It may hold the files of an interrupted run of the same key.
        key: The step key.
        log_dir: A folder for events and logs, which is no part of the output.
    """

    staging: Path
    key: str
    log_dir: Path


Counts = Mapping[str, float]
Run = Callable[[Any, Mapping[str, Path], StepContext], Counts]


Role = Literal["", "dataset", "validation", "model", "baselines", "evaluation", "report"]
"""The kind of a step's output, by which versioning, records, registration and pages find it after a run."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain.

    Attributes:
        name: Unique in its chain.
        run: ``(config, input folders by name, context) -> counts``: the function, or its import path
            ``module:function``, which is imported where the step runs: planning imports no torch.
        output: Folder of its output, relative to the workspace.
        section: Field of the pipeline's configuration that configures it.
        inputs: Input name of `run` -> name of the step that makes it.
        after: Steps that must have ended before, though nothing of theirs is read.
        role: What the output is.
        verb: What a user types to run it alone.
        alone: Whether it takes the whole machine, so that nothing runs beside it.
        uses_champion: Whether the champion scores pictures in it, as input ``judge``; see `flows.picture_scorer`.
        logs: Name of its log folder in ``runs/steps``, where that is not `name`.
    """

    name: str
    run: Run | str
    output: str
    section: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    role: Role = ""
    verb: str = "pipeline"
    alone: bool = False
    uses_champion: bool = False
    logs: str = ""

    @property
    def module(self) -> str:
        """The module whose source, with all that it imports, is the code of the step."""
        return self.run.partition(":")[0] if isinstance(self.run, str) else self.run.__module__

    def load(self) -> Run:
        """Returns the function, imported if need be."""
        if not isinstance(self.run, str):
            return self.run
        module, _, function = self.run.partition(":")
        run: Run = getattr(importlib.import_module(module), function)
        return run

    @property
    def log_name(self) -> str:
        """Name of its log folder."""
        return self.logs or self.name

    def log_dir(self, workspace: Path) -> Path:
        """Returns the folder of its logs."""
        return workspace / "runs" / "steps" / self.log_name


@dataclass(frozen=True, slots=True)
class Outcome:
    """The published output of a step: its folder, its manifest, and whether it was there already."""

    step: str
    folder: Path
    manifest: Manifest
    reused: bool


@dataclass(frozen=True)
class PlannedStep:
    """A step with all that its output depends on.

    Attributes:
        step: The step.
        config: Its resolved configuration.
        inputs: Outcomes by input name.
        notes: What the history of the step records beside the key when it begins.
    """

    step: Step
    config: BaseModel
    inputs: Mapping[str, Outcome]
    notes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> str:
        """Digest of the source that the output depends on."""
        return code_digest([self.step.module])

    @cached_property
    def key(self) -> str:
        """Covers step name, config, contents of the inputs and source code."""
        # By content and not by the key of the step that made it: an input that is rebuilt with equal bytes is the same.
        contents = {name: outcome.manifest.content for name, outcome in self.inputs.items()}
        return sha256_json([self.step.name, self.config.model_dump(mode="json"), contents, self.code])


def find_done(planned: PlannedStep, workspace: Path) -> Outcome | None:
    """Returns the published output of the planned step, if it is there and undamaged.

    Raises:
        FoundryError: Something lies in it that the step did not make, and that making it anew would delete.
    """
    step = planned.step
    folder = workspace / step.output
    manifest = read_manifest(folder)
    if manifest is None or manifest.key != planned.key:
        return None
    # Before the check for damage, after which the output is rebuilt and what lies in it is deleted.
    require_no_strays(folder, manifest)
    return None if damage(folder, manifest) else Outcome(step.name, folder, manifest, reused=True)


def execute(planned: PlannedStep, workspace: Path) -> Outcome:
    """Runs a step unless its output is there; see the module's docstring.

    Raises:
        FoundryError: Another process is at this step, or the step itself raises it.
    """
    step, config, inputs, key = planned.step, planned.config, planned.inputs, planned.key
    log_dir = step.log_dir(workspace)
    log_dir.mkdir(parents=True, exist_ok=True)
    with _only_writer(log_dir / "lock", step.name):
        done = find_done(planned, workspace) or _adopt(step, key, workspace)
        if done:
            _drop_replaced(step, workspace)
            return done
        # It may hold the journal of an interrupted run of this key, from which the step goes on.
        staging = _staging(step, key, workspace)
        append_event(log_dir / HISTORY, "begun", key=key, **planned.notes)
        started = time.monotonic()
        counts = step.load()(
            config, {name: outcome.folder for name, outcome in inputs.items()}, StepContext(staging, key, log_dir)
        )
        files = list_files(staging)
        manifest = Manifest(
            step=step.name,
            key=key,
            config=config.model_dump(mode="json"),
            code=planned.code,
            inputs={name: outcome.manifest.content for name, outcome in inputs.items()},
            files=files,
            content=content_digest(files),
            counts=dict(counts),
            seconds=round(time.monotonic() - started, 3),
            versions=_versions(),
        )
        _sync(staging, files)
        # Before the scratch is removed: after a kill in between, the output is complete, and needs no checkpoints.
        write_manifest(staging, manifest)
        folder = _publish(step, staging, workspace)
        append_event(log_dir / HISTORY, "published", key=key, content=manifest.content)
        return Outcome(step.name, folder, manifest, reused=False)


@contextmanager
def _only_writer(path: Path, name: str) -> Iterator[None]:
    # The kernel frees a lock of the operating system when its holder dies, so no run is blocked by a dead one.
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise FoundryError(
            f"Another process is running the step '{name}' in this workspace.", hint="Wait for it, or stop it."
        ) from error


def _staging(step: Step, key: str, workspace: Path) -> Path:
    """Returns the staging folder of `key`, made if needed, and removes those of other keys of the step."""
    staging = _staging_home(step, workspace) / f"{Path(step.output).name}-{key[:_KEY_SHOWN]}"
    for other in _stagings(step, workspace):
        if other != staging and not other.name.endswith(_REPLACED):
            shutil.rmtree(other)
    staging.mkdir(parents=True, exist_ok=True)
    return staging


def _staging_home(step: Step, workspace: Path) -> Path:
    return workspace / Path(step.output).parent / STAGING


def _stagings(step: Step, workspace: Path) -> list[Path]:
    """Lists the staging folders of this step and no other: ``stage1-<key>``, not ``stage1-mined-<key>``."""
    name = Path(step.output).name
    return [path for path in _staging_home(step, workspace).glob(f"{name}-*") if path.name.rpartition("-")[0] == name]


def _adopt(step: Step, key: str, workspace: Path) -> Outcome | None:
    """Finishes a publication that died between writing the manifest and the rename."""
    staging = _staging(step, key, workspace)
    manifest = read_manifest(staging)
    if manifest is None or manifest.key != key or damage(staging, manifest):
        return None
    return Outcome(step.name, _publish(step, staging, workspace), manifest, reused=True)


def _publish(step: Step, staging: Path, workspace: Path) -> Path:
    """Moves a finished output into place; the output that it replaces is deleted only afterwards."""
    folder = workspace / step.output
    _drop_scratch(staging)
    # A rename can't replace a folder that is not empty, so the old output is moved aside first.
    if folder.exists():
        replaced = staging.with_name(staging.name + _REPLACED)
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    staging.rename(folder)
    fsync_folder(folder.parent)
    fsync_folder(staging.parent)
    _drop_replaced(step, workspace)
    return folder


def _drop_replaced(step: Step, workspace: Path) -> None:
    """Deletes outputs that were replaced; after a kill in a publication, those of an earlier run."""
    for path in _stagings(step, workspace):
        if path.name.endswith(_REPLACED):
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path, files: Iterable[FileEntry]) -> None:
    """Syncs files and their names to disk, so that no manifest names what a power cut takes."""
    for entry in files:
        descriptor = os.open(folder / entry.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for parent in {(folder / entry.path).parent for entry in files} | {folder}:
        fsync_folder(parent)


def _drop_scratch(staging: Path) -> None:
    """Removes the hidden files and folders in which a step keeps its journal."""
    # In reverse order a folder comes after what is below it.
    for path in sorted(staging.rglob(".*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _RECORDED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
