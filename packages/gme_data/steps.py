"""Steps: plain functions that write a folder, run once per key, published by one rename.

A step writes into a staging folder that belongs to its key. If the process dies, the next run finds the same folder and
goes on from what is in it. When the step returns, the files are listed, hashed and put on disk, the manifest is written
last, the scratch goes, and the folder is renamed into place. Same key and undamaged files: nothing is done. Knows no
orchestrator.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
"""In a step's log folder: when a run of which key began and when it was published."""
_REPLACED = ".old"
_KEY_SHOWN = 16
_RECORDED_VERSIONS = ("torch", "transformers", "deepspeed", "faiss-cpu", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a running step is given besides config and inputs.

    Attributes:
        staging: Where it writes. It may hold what an interrupted run of the same key left.
        key: The step key.
        log_dir: Where it may append events and logs; not part of the output.
    """

    staging: Path
    key: str
    log_dir: Path


Counts = Mapping[str, float]
Run = Callable[[Any, Mapping[str, Path], StepContext], Counts]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the chain.

    Attributes:
        name: Unique in a pipeline; also names its log folder.
        output: Folder of its output, relative to the workspace.
        run: ``(config, input folders by name, context) -> counts``.
        code: Further modules whose source the output depends on, for code that is started and not imported.
    """

    name: str
    output: str
    run: Run
    code: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `execute` did: the manifest, where the output is, and whether it was there already."""

    step: str
    folder: Path
    manifest: Manifest
    reused: bool


def step_key(step: Step, config: BaseModel, inputs: Mapping[str, Manifest]) -> tuple[str, str]:
    """``(key, code digest)``: the key covers step name, config, contents of the inputs and source code."""
    code = code_digest([step.run.__module__, *step.code])
    contents = {name: manifest.content for name, manifest in inputs.items()}
    return sha256_json([step.name, config.model_dump(mode="json"), contents, code]), code


def find_done(step: Step, key: str, workspace: Path) -> Outcome | None:
    """The published output of `key`, if it is there and undamaged.

    Raises:
        FoundryError: Something lies in it that the step did not make, and that making it anew would delete.
    """
    folder = workspace / step.output
    manifest = read_manifest(folder)
    if manifest is None or manifest.key != key:
        return None
    require_no_strays(folder, manifest)
    return None if damage(folder, manifest) else Outcome(step.name, folder, manifest, reused=True)


def execute(step: Step, config: BaseModel, inputs: Mapping[str, Outcome], workspace: Path) -> Outcome:
    """Run a step unless its output is there; see the module's docstring.

    Raises:
        FoundryError: Another process is at this step, or the step itself raises it.
    """
    key, code = step_key(step, config, {name: outcome.manifest for name, outcome in inputs.items()})
    log_dir = workspace / "runs" / "steps" / step.name
    log_dir.mkdir(parents=True, exist_ok=True)
    with _only_writer(log_dir / "lock", step.name):
        done = find_done(step, key, workspace) or _adopt(step, key, workspace)
        if done:
            _drop_replaced(step, workspace)
            return done
        staging = _staging(step, key, workspace)
        append_event(log_dir / HISTORY, "begun", key=key)
        started = time.monotonic()
        counts = step.run(
            config, {name: outcome.folder for name, outcome in inputs.items()}, StepContext(staging, key, log_dir)
        )
        files = list_files(staging)
        manifest = Manifest(
            step=step.name,
            key=key,
            config=config.model_dump(mode="json"),
            code=code,
            inputs={name: outcome.manifest.content for name, outcome in inputs.items()},
            files=files,
            content=content_digest(files),
            counts=dict(counts),
            seconds=round(time.monotonic() - started, 3),
            versions=_versions(),
        )
        _sync(staging, files)
        # Before the scratch goes: a kill in between finds a finished output, not one whose checkpoints are gone.
        write_manifest(staging, manifest)
        folder = _publish(step, staging, workspace)
        append_event(log_dir / HISTORY, "published", key=key, content=manifest.content)
        return Outcome(step.name, folder, manifest, reused=False)


@contextmanager
def _only_writer(path: Path, name: str) -> Iterator[None]:
    # A lock of the operating system: the kernel frees it when its holder dies, so no run is ever blocked by a dead one.
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise FoundryError(
            f"Another process is running the step '{name}' in this workspace.", hint="Wait for it, or stop it."
        ) from error


def _staging(step: Step, key: str, workspace: Path) -> Path:
    """The staging folder of `key`, made if needed; those of other keys of the step are of no use any more and go."""
    staging = _staging_home(step, workspace) / f"{Path(step.output).name}-{key[:_KEY_SHOWN]}"
    for other in _stagings(step, workspace):
        if other != staging and not other.name.endswith(_REPLACED):
            shutil.rmtree(other)
    staging.mkdir(parents=True, exist_ok=True)
    return staging


def _staging_home(step: Step, workspace: Path) -> Path:
    return workspace / Path(step.output).parent / STAGING


def _stagings(step: Step, workspace: Path) -> list[Path]:
    """What lies in staging for this step and no other: ``stage1-<key>``, not ``stage1-mined-<key>``."""
    name = Path(step.output).name
    return [path for path in _staging_home(step, workspace).glob(f"{name}-*") if path.name.rpartition("-")[0] == name]


def _adopt(step: Step, key: str, workspace: Path) -> Outcome | None:
    """Finish a publication that died between writing the manifest and the rename."""
    staging = _staging(step, key, workspace)
    manifest = read_manifest(staging)
    if manifest is None or manifest.key != key or damage(staging, manifest):
        return None
    return Outcome(step.name, _publish(step, staging, workspace), manifest, reused=True)


def _publish(step: Step, staging: Path, workspace: Path) -> Path:
    """Put a finished output in its place; what it replaces is deleted only when it is there."""
    folder = workspace / step.output
    _drop_scratch(staging)
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
    """Delete outputs that were replaced; after a kill in a publication, those of an earlier run."""
    for path in _stagings(step, workspace):
        if path.name.endswith(_REPLACED):
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path, files: Iterable[FileEntry]) -> None:
    """Put files and their names on disk, so that no manifest speaks of what a power cut takes."""
    for entry in files:
        descriptor = os.open(folder / entry.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for place in {(folder / entry.path).parent for entry in files} | {folder}:
        fsync_folder(place)


def _drop_scratch(staging: Path) -> None:
    """Remove the hidden files and folders in which a step keeps its journal."""
    for path in sorted(staging.rglob(".*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED_VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
