"""What a release promises beyond its bytes: its code is this commit's, a task scores the same, the run can be repeated.

Runs other verbs as processes of their own, in folders of their own: nothing in the workspace changes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.chain import CHAIN
from gme_data.digests import code_digest
from gme_data.errors import FoundryError
from gme_data.manifest import read_manifest
from gme_release.release.bundle import copy_model
from gme_release.release.publish import require_new
from gme_release.release.record import ReleaseRecord
from gme_release.report_scores import read_report_scores
from umrb.results import read_scores

RESCORE_TOLERANCE = 0.005
"""Of a score: the same weights and data in another environment."""
REPRODUCE_TOLERANCE = 0.05
"""Of the mean over all tasks: training again, where threads and kernels may add in another order."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A number of the record and the one found now."""

    name: str
    recorded: float
    found: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether they agree."""
        return abs(self.found - self.recorded) <= self.tolerance


def require_same_code(steps: Mapping[str, str]) -> None:
    """Refuse a release whose run was made by other code than is here.

    Raises:
        FoundryError: Names the steps.
    """
    changed = []
    for name, recorded in steps.items():
        if name in CHAIN:
            step = CHAIN[name].load()
            if code_digest([step.run.__module__, *step.code]) != recorded:
                changed.append(name)
    if changed:
        raise FoundryError(
            f"The run was made by other code than this checkout's: {', '.join(changed)}",
            hint="Check out the commit of the run, or run `gme pipeline` again and release that.",
        )


def rescore(folder: Path, record: ReleaseRecord, task: str, workspace: Path) -> Compared:
    """Score the bundle's model on one task again, on the workspace's data.

    Raises:
        FoundryError: No such task, the data are not the release's, or the scores differ by more than the tolerance.
    """
    known = {one.name: one for one in record.tasks}
    if task not in known:
        raise FoundryError(f"The release has no task '{task}'.", hint=f"Tasks: {', '.join(known)}.")
    corpus = next(one for one in record.datasets if one.step == "corpus")
    manifest = read_manifest(workspace / corpus.path)
    if manifest is None or manifest.content != corpus.content:
        raise FoundryError(
            f"{workspace / corpus.path} is not the data of the release (sha256 {corpus.content[:12]}).",
            hint="Check out the release's commit and `dvc pull`, or give --workspace.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / corpus.path).parent.mkdir(parents=True)
        (home / corpus.path).symlink_to((workspace / corpus.path).resolve())
        (home / "checkpoints").mkdir()
        copy_model(folder, record, home / CHAIN["train-2"].load().output)
        _gme(home, record, "evaluate", "--set", f"evaluation.scoring.tasks=[{task}]")
        model, *_ = read_scores(home / CHAIN["evaluate"].load().output / "scores.json")
    value = model.by_name[task].value
    return _agreed([Compared(task, known[task].value, value, RESCORE_TOLERANCE)])[0]


def reproduce(record: ReleaseRecord, target: Path) -> list[Compared]:
    """Run the pipeline of the record from nothing in `target`, then compare data and scores.

    Raises:
        FoundryError: `target` is not empty, a champion judged the recorded run's pictures, the pipeline fails, or data
            or scores differ.
    """
    if not (target / "pipeline.yaml").is_file():  # of an attempt that was cut off, which goes on
        require_new(target)
    if "judge" in record.inputs.get("synthesize", {}):
        raise FoundryError(
            "A champion judged the pictures of this run, and its weights are not in the bundle.",
            hint="Reproduce a run that began without a champion, or with synthesis.picture_filter=none.",
        )
    require_same_code(record.source.steps)
    target.mkdir(parents=True, exist_ok=True)
    policy = {"required_tasks": [task.name for task in record.tasks]}
    (target / "reproduce-policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    _gme(target, record, "pipeline", "--set", "release.promotion=reproduce-policy.yaml")
    different = [
        dataset.path
        for dataset in record.datasets
        if (found := read_manifest(target / dataset.path)) is None or found.content != dataset.content
    ]
    # Mined negatives depend on trained weights, which are equal only where threads add in the same order.
    if unlike := [path for path in different if path != CHAIN["mine"].load().output]:
        raise FoundryError(f"The data differ from the release's: {', '.join(unlike)}.", exit_code=1)
    overall = read_report_scores(target / CHAIN["report"].load().output / "scores.json")["overall"]
    return _agreed([Compared("overall", record.overall, overall, REPRODUCE_TOLERANCE)])


def _agreed(found: list[Compared]) -> list[Compared]:
    if apart := [one for one in found if not one.within]:
        lines = "; ".join(f"{c.name} {c.found:.4f}, recorded {c.recorded:.4f} ± {c.tolerance:g}" for c in apart)
        raise FoundryError(f"The scores differ from the release's: {lines}", exit_code=1)
    return found


def _gme(workspace: Path, record: ReleaseRecord, verb: str, *arguments: str) -> None:
    """Run a verb on the record's configuration in `workspace`."""
    config: dict[str, Any] = record.config
    (workspace / "pipeline.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "gme_cli.main", verb, "--config", str(workspace / "pipeline.yaml")]
    done = subprocess.run(
        [*command, "--workspace", str(workspace), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise FoundryError(f"`gme {verb}` ended with status {done.returncode}; its output is above.", exit_code=1)
