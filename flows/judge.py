"""Which champion scores the pictures of a run: chosen when its training data are first made, pinned for every rerun.

A run is told by config, corpus and code of the synthesis. Without that the champion that a run ends with would change
the run's own inputs, and no pipeline would ever be finished. The choice stands in the step's own history, beside the
key it began with. A new run is one of those three changed, or ``gme pipeline --new-run``.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from flows.config import PipelineConfig
from gme_data.errors import FoundryError
from gme_data.events import read_events
from gme_data.manifest import require
from gme_data.settings import Frozen
from gme_data.steps import HISTORY, Outcome, PlannedStep
from gme_release.champion import find
from gme_release.trouble import TrackerError
from gme_synthesis.corpus.config import CHAMPION, SynthesisConfig

_LOGGER = logging.getLogger(__name__)


def choose_judge(planned: PlannedStep, config: Frozen, workspace: Path, *, new_run: bool = False) -> PlannedStep:
    """The step with its further input ``judge``: the champion pinned for it, else the present one, if there is any.

    Raises:
        FoundryError: The files of the pinned champion are missing or damaged.
    """
    synthesis = planned.config
    wanted = isinstance(synthesis, SynthesisConfig) and synthesis.picture_filter.model == CHAMPION
    if not isinstance(config, PipelineConfig) or not wanted:
        return planned
    run = planned.key  # of the step if nobody judged
    folder = None if new_run else _pinned(planned, run, workspace)
    judge = _champion(config, workspace) if folder is None else _opened(workspace / folder) if folder else None
    notes = {"run": run, "judge": _named(judge.folder, workspace) if judge else ""}
    inputs = {**planned.inputs, "judge": judge} if judge else planned.inputs
    return replace(planned, inputs=inputs, notes=notes)


def _pinned(planned: PlannedStep, run: str, workspace: Path) -> str | None:
    """Folder of the judge that `run` began with last, empty if nobody judged; None if it never began."""
    history = read_events(planned.step.log_dir(workspace) / HISTORY, "begun")
    judges = [event["judge"] for event in history if event.get("run") == run and isinstance(event.get("judge"), str)]
    return judges[-1] if judges else None


def _champion(config: PipelineConfig, workspace: Path) -> Outcome | None:
    try:
        champion = find(workspace, config.release.model_name, config.release.champion)
    except TrackerError as error:
        _LOGGER.warning("No champion judges the pictures, because the tracker does not answer: %s", error)
        return None
    return _opened(champion.folder) if champion else None


def _named(folder: Path, workspace: Path) -> str:
    """Relative, so that a workspace may be moved; absolute for what lies outside of it."""
    here, there = workspace.resolve(), folder.resolve()
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()


def _opened(folder: Path) -> Outcome:
    try:
        return Outcome("judge", folder, require(folder, "pipeline"), reused=True)
    except FoundryError as error:
        raise FoundryError(
            f"The model that judged the pictures of this run can't be used: {error}",
            hint="`gme pipeline --new-run` takes the present champion.",
        ) from error
