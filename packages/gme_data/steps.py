"""Steps: plain functions that write a folder, run once per key, published by one rename.

A step writes into a staging folder that belongs to its key. If the process dies, the next run finds the same folder and
goes on from what is in it. When the step returns, the files are listed and hashed, the manifest is written last, and
the folder is renamed into place. Same key and undamaged files: nothing is done. Knows no orchestrator.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel

from gme_data.digests import code_digest, sha256_json
from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, damage, list_files, read_manifest, write_manifest

STAGING = ".staging"
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
    """The published output of `key`, if it is there and undamaged."""
    folder = workspace / step.output
    manifest = read_manifest(folder)
    if manifest is None or manifest.key != key or damage(folder, manifest):
        return None
    return Outcome(step.name, folder, manifest, reused=True)


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
            return done
        staging = _staging(step, key, workspace)
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
        _drop_scratch(staging)
        write_manifest(staging, manifest)
        return Outcome(step.name, _publish(step, staging, workspace), manifest, reused=False)


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
    home = workspace / Path(step.output).parent / STAGING
    mine = home / f"{Path(step.output).name}-{key[:16]}"
    for other in home.glob(f"{Path(step.output).name}-*"):
        if other != mine and _same_step(other, mine):
            shutil.rmtree(other)
    mine.mkdir(parents=True, exist_ok=True)
    return mine


def _same_step(other: Path, mine: Path) -> bool:
    return other.name.rpartition("-")[0] == mine.name.rpartition("-")[0]


def _adopt(step: Step, key: str, workspace: Path) -> Outcome | None:
    """Finish a publication that died between writing the manifest and the rename."""
    staging = _staging(step, key, workspace)
    manifest = read_manifest(staging)
    if manifest is None or manifest.key != key or damage(staging, manifest):
        return None
    return Outcome(step.name, _publish(step, staging, workspace), manifest, reused=True)


def _publish(step: Step, staging: Path, workspace: Path) -> Path:
    folder = workspace / step.output
    old = staging.with_name(f"{staging.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


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
