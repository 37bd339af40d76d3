"""What a release promises beyond its bytes: its code is this commit's, a task scores the same, the run can be repeated.

Runs steps and pipelines in folders of their own: nothing in the workspace changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.chain import Chain, run_alone
from flows.chains import pipeline_chain
from flows.config import PipelineConfig, parse_pipeline
from gme_data.digests import code_digest
from gme_data.errors import FoundryError
from gme_data.manifest import read_manifest
from gme_data.scores import read_systems
from gme_release.release.bundle import copy_model
from gme_release.release.publish import require_new
from gme_release.release.record import ReleaseRecord

_POLICY = "reproduce-policy.yaml"
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


def require_same_code(chain: Chain, steps: Mapping[str, str]) -> None:
    """Refuse a release whose run was made by other code than is here; `steps` is the recorded digest by step.

    Raises:
        FoundryError: Names the steps.
    """
    changed = [step.name for step in chain if step.name in steps and code_digest([step.module]) != steps[step.name]]
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
    chain = pipeline_chain(_recorded(record, "evaluation", scoring={"tasks": [task]}))
    model, evaluate = chain.last("model"), chain.last("evaluation")
    corpus = next(one for one in record.datasets if one.step == evaluate.inputs["corpus"])
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
        (home / model.output).parent.mkdir(parents=True, exist_ok=True)
        copy_model(folder, record, home / model.output)
        scores = read_systems(run_alone(chain, evaluate.name, home).folder)[0]
    value = scores.by_name[task].value
    return _agreed([Compared(task, known[task].value, value, RESCORE_TOLERANCE)])[0]


def reproduce(record: ReleaseRecord, target: Path) -> list[Compared]:
    """Run the pipeline of the record from nothing in `target`, then compare data and scores.

    Raises:
        FoundryError: `target` is not empty, a champion judged the recorded run's pictures, the pipeline fails, or data
            or scores differ.
    """
    from flows.server import local_records

    if not (target / "pipeline.yaml").is_file():  # of an attempt that was cut off, which goes on
        require_new(target)
    if "judge" in record.inputs.get("synthesize", {}):
        raise FoundryError(
            "A champion judged the pictures of this run, and its weights are not in the bundle.",
            hint="Reproduce a run that began without a champion, or with synthesis.picture_filter.model=''.",
        )
    config = _recorded(record, "release", promotion=_POLICY, floors=[], type_floors=[])
    chain = pipeline_chain(config)
    require_same_code(chain, record.source.steps)
    target.mkdir(parents=True, exist_ok=True)
    # That all tasks are scored is asked of any run; how well, is compared with the record.
    (target / _POLICY).write_text(yaml.safe_dump({"above_baselines": []}), encoding="utf-8")
    (target / "pipeline.yaml").write_text(yaml.safe_dump(dict(record.config), sort_keys=False), encoding="utf-8")
    with local_records(target):
        from flows.pipeline import run_pipeline  # Prefect reads its settings when it is imported

        made = run_pipeline(config, target).record
    if not made.passed:
        raise FoundryError(f"The gate stayed closed: {'; '.join(made.reasons)}", exit_code=1)
    different = [
        dataset.path
        for dataset in record.datasets
        if (found := read_manifest(target / dataset.path)) is None or found.content != dataset.content
    ]
    # Mined negatives depend on trained weights, which are equal only where threads add in the same order.
    if unlike := [path for path in different if path not in {step.output for step in chain if step.name == "mine"}]:
        raise FoundryError(f"The data differ from the release's: {', '.join(unlike)}.", exit_code=1)
    return _agreed([Compared("overall", record.overall, made.scores["overall"], REPRODUCE_TOLERANCE)])


def _agreed(found: list[Compared]) -> list[Compared]:
    if apart := [one for one in found if not one.within]:
        lines = "; ".join(f"{c.name} {c.found:.4f}, recorded {c.recorded:.4f} ± {c.tolerance:g}" for c in apart)
        raise FoundryError(f"The scores differ from the release's: {lines}", exit_code=1)
    return found


def _recorded(record: ReleaseRecord, section: str, **fields: Any) -> PipelineConfig:  # noqa: ANN401 - any JSON value
    """The configuration of the record with some fields of a section set; of a mapping, those that are named."""
    raw = dict(record.config)
    part = dict(raw.get(section, {}))
    for name, value in fields.items():
        part[name] = {**part.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_pipeline({**raw, section: part}, where="the release's configuration")
