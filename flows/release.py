"""Checks of a release beyond its bytes: its code is this commit's, a task scores the same, the run can be repeated.

Steps and pipelines run in separate folders: nothing in the workspace changes.
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
"""Tolerance of a score: weights and data are the same, the environment may differ."""
REPRODUCE_TOLERANCE = 0.05
"""Tolerance of the mean over all tasks after another training, where threads and kernels may add in another order."""


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """A score of the record beside the one that was computed again."""

    name: str
    recorded: float
    computed: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Returns whether the two agree."""
        return abs(self.computed - self.recorded) <= self.tolerance


def require_same_code(chain: Chain, steps: Mapping[str, str]) -> None:
    """Checks that the steps of a run have the code of this checkout.

    Args:
        chain: The chain of the run.
        steps: Recorded code digest by name of the step.

    Raises:
        FoundryError: The code differs; the message names the steps.
    """
    changed = [step.name for step in chain if step.name in steps and code_digest([step.module]) != steps[step.name]]
    if changed:
        raise FoundryError(
            f"The run was made by other code than this checkout's: {', '.join(changed)}",
            hint="Check out the commit of the run, or run `gme pipeline` again and release that.",
        )


def rescore(folder: Path, record: ReleaseRecord, task: str, workspace: Path) -> ScoreComparison:
    """Scores the bundle's model on one task again, on the workspace's data.

    Raises:
        FoundryError: There is no such task, the data are not the release's, or the score differs by more than the
            tolerance.
    """
    recorded = {score.name: score.value for score in record.tasks}
    if task not in recorded:
        raise FoundryError(f"The release has no task '{task}'.", hint=f"Tasks: {', '.join(recorded)}.")
    chain = pipeline_chain(_recorded_config(record, "evaluation", scoring={"tasks": [task]}))
    model, evaluate = chain.last("model"), chain.last("evaluation")
    corpus = next(dataset for dataset in record.datasets if dataset.step == evaluate.inputs["corpus"])
    manifest = read_manifest(workspace / corpus.path)
    if manifest is None or manifest.content != corpus.content:
        raise FoundryError(
            f"{workspace / corpus.path} is not the data of the release (sha256 {corpus.content[:12]}).",
            hint="Check out the release's commit and `dvc pull`, or give --workspace.",
        )
    with tempfile.TemporaryDirectory() as scratch:
        scratch_workspace = Path(scratch)
        data, weights = scratch_workspace / corpus.path, scratch_workspace / model.output
        data.parent.mkdir(parents=True)
        data.symlink_to((workspace / corpus.path).resolve())
        weights.parent.mkdir(parents=True, exist_ok=True)
        copy_model(folder, record, weights)
        scores = read_systems(run_alone(chain, evaluate.name, scratch_workspace).folder)[0]
    value = scores.by_name[task].value
    return _require_within([ScoreComparison(task, recorded[task], value, RESCORE_TOLERANCE)])[0]


def reproduce(record: ReleaseRecord, target: Path) -> list[ScoreComparison]:
    """Runs the pipeline of the record from scratch in `target`, then compares data and scores.

    Raises:
        FoundryError: `target` is not empty, a champion scored the recorded run's pictures, the pipeline fails, or data
            or scores differ.
    """
    from flows.server import prefect_workspace

    if not (target / "pipeline.yaml").is_file():  # an attempt that was cut off left one, and is resumed
        require_new(target)
    if "judge" in record.inputs.get("synthesize", {}):
        raise FoundryError(
            "A champion judged the pictures of this run, and its weights are not in the bundle.",
            hint="Reproduce a run that began without a champion, or with synthesis.picture_filter.model=''.",
        )
    config = _recorded_config(record, "release", promotion=_POLICY, floors=[], type_floors=[])
    chain = pipeline_chain(config)
    require_same_code(chain, record.source.steps)  # other code would show as other data only after hours
    target.mkdir(parents=True, exist_ok=True)
    # Every gate requires that all tasks are scored. How well they are is compared with the record, not by the policy.
    (target / _POLICY).write_text(yaml.safe_dump({"above_baselines": []}), encoding="utf-8")
    (target / "pipeline.yaml").write_text(yaml.safe_dump(dict(record.config), sort_keys=False), encoding="utf-8")
    with prefect_workspace(target):
        from flows.pipeline import run_pipeline  # Prefect reads its settings when it is imported

        reproduced = run_pipeline(config, target).record
    if not reproduced.passed:
        raise FoundryError(f"The gate stayed closed: {'; '.join(reproduced.reasons)}", exit_code=1)
    different = [
        dataset.path
        for dataset in record.datasets
        if (manifest := read_manifest(target / dataset.path)) is None or manifest.content != dataset.content
    ]
    # Mined negatives depend on trained weights, which are equal only where threads add in the same order.
    if unexpected := [path for path in different if path not in {step.output for step in chain if step.name == "mine"}]:
        raise FoundryError(f"The data differ from the release's: {', '.join(unexpected)}.", exit_code=1)
    return _require_within(
        [ScoreComparison("overall", record.overall, reproduced.scores["overall"], REPRODUCE_TOLERANCE)]
    )


def _require_within(comparisons: list[ScoreComparison]) -> list[ScoreComparison]:
    if differing := [comparison for comparison in comparisons if not comparison.within]:
        lines = "; ".join(f"{c.name} {c.computed:.4f}, recorded {c.recorded:.4f} ± {c.tolerance:g}" for c in differing)
        raise FoundryError(f"The scores differ from the release's: {lines}", exit_code=1)
    return comparisons


def _recorded_config(record: ReleaseRecord, section: str, **fields: Any) -> PipelineConfig:  # noqa: ANN401 - any JSON value
    """Returns the configuration of the record with some `fields` of a section set; mappings are merged."""
    raw = dict(record.config)
    values = dict(raw.get(section, {}))
    for name, value in fields.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_pipeline({**raw, section: values}, where="the release's configuration")
