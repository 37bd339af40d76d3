"""What a model must show before it is registered: the policy of any pipeline, and the gate of one.

The policy is read from ``mlflow/promotion.yaml``; floors stand in the pipeline's own file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.settings import Frozen, parse_config, read_raw
from gme_release.config import Floor, ReleaseConfig, TypeFloor

_CHECKOUT = Path(__file__).resolve().parents[3]


class NoRegression(Frozen):
    """How far below the champion a model may be; see `gme_release.gate.regression`."""

    overall_margin: float = Field(0.02, ge=0)
    """The mean over all tasks may be this much lower."""
    type_margin: float = Field(0.05, ge=0)
    """The mean of each task type may be this much lower: two trainings of one recipe differ by about that."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """One-sided confidence with which the drop must be larger than the margin to close the gate."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = 0
    """Seed of the resampling: the same seed and values give the same verdict."""


class CostLimits(Frozen):
    """What a model may cost. A limit that is set closes the gate where the cost was not measured, too."""

    max_megabytes: float | None = Field(None, gt=0)
    """Size of the model's files, in MB."""
    max_seconds_per_query: float | None = Field(None, gt=0)
    """Wall time of the whole evaluation (encoding of the documents included) by its number of queries, in seconds. It
    depends on the machine and on what else it does, so leave room: this finds what is ten times too slow."""


class PromotionPolicy(Frozen):
    """What the model of any pipeline must show before it is registered (``mlflow/promotion.yaml``).

    Every task of its evaluation must be scored besides, every number finite; floors stand in the pipeline's own file.
    """

    no_regression: NoRegression | None = NoRegression()
    """How far below the champion it may be; null skips the comparison."""
    limits: CostLimits = CostLimits()
    """Size and speed."""
    above_baselines: tuple[str, ...] = ()
    """Baselines that must be exceeded on the headline metric: by the mean over all tasks, and by that of every task
    type with `min_type_queries` queries."""
    min_type_queries: int = Field(50, ge=1)
    """A task type of fewer queries is not compared with baselines by itself: one query could decide it."""


class Gate(PromotionPolicy):
    """The conditions for one pipeline's model: the policy of any, its own floors, the tasks of its evaluation."""

    required_tasks: tuple[str, ...] = Field(min_length=1)
    """Tasks that must have been scored, every score finite."""
    floors: tuple[Floor, ...] = ()
    """Absolute floors of tasks."""
    type_floors: tuple[TypeFloor, ...] = ()
    """Absolute floors of task types."""

    @classmethod
    def of(cls, policy: PromotionPolicy, config: ReleaseConfig, tasks: Iterable[str]) -> Gate:
        """Returns the gate of a pipeline.

        Raises:
            FoundryError: The evaluation has no task.
        """
        of_pipeline = {"required_tasks": tuple(tasks), "floors": config.floors, "type_floors": config.type_floors}
        return parse_config({**dict(policy), **of_pipeline}, cls, where="the gate")


def load_policy(path: Path, workspace: Path) -> PromotionPolicy:
    """Reads the policy at `path` below the workspace, else below the source checkout of this module.

    Raises:
        FoundryError: Neither file exists, or a field is bad.
    """
    candidates = [workspace / path, _CHECKOUT / path]
    raw, where = read_raw(next((file for file in candidates if file.is_file()), candidates[0]))
    # Earlier versions had these fields in the policy.
    if misplaced := sorted(raw.keys() & {"required_tasks", "floors", "type_floors"}):
        raise FoundryError(
            f"{where}: {', '.join(misplaced)}: what holds of one pipeline stands in its own file now.",
            hint="Put floors under `release:` of the pipeline file; all tasks of an evaluation are required anyway.",
        )
    return parse_config(raw, PromotionPolicy, where=where)
