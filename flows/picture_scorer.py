"""The champion that scores the pictures of a run: chosen when its training data are first made, pinned for every rerun.

Without the pin, the champion that a run ends with would change the run's own inputs, and no pipeline would ever be
finished. A run is identified by configuration, corpus and code of the synthesis. The pin is in the step's history,
beside the key with which the step began. A new run begins when one of the three changes, or by
``gme pipeline --new-run``.
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
from gme_release.errors import TrackerError
from gme_release.registry.champion import find_model
from gme_synthesis.corpus.config import CHAMPION, SynthesisConfig

_LOGGER = logging.getLogger(__name__)
_INPUT = "judge"
"""Name of the champion among the step's inputs, in its history, and so in records of earlier versions."""


def pin_picture_scorer(planned: PlannedStep, config: Frozen, workspace: Path, *, new_run: bool = False) -> PlannedStep:
    """Returns the step with the champion as a further input: the pinned one, else the present one, if there is any.

    Args:
        planned: A step that uses the champion.
        config: Configuration of the chain; only pipelines have a champion.
        workspace: The workspace.
        new_run: Whether to take the present champion in any case.

    Raises:
        FoundryError: The files of the pinned champion are missing or damaged.
    """
    synthesis = planned.config
    filters_by_champion = isinstance(synthesis, SynthesisConfig) and synthesis.picture_filter.model == CHAMPION
    if not isinstance(config, PipelineConfig) or not filters_by_champion:
        return planned
    run = planned.key  # the key without the champion, which is the same in every rerun
    folder = None if new_run else _pinned_folder(planned, run, workspace)
    if folder is None:
        scorer = _present_champion(config, workspace)
    else:
        scorer = _open_model(workspace / folder) if folder else None
    notes = {"run": run, _INPUT: _portable_path(scorer.folder, workspace) if scorer else ""}
    inputs = {**planned.inputs, _INPUT: scorer} if scorer else planned.inputs
    return replace(planned, inputs=inputs, notes=notes)


def _pinned_folder(planned: PlannedStep, run: str, workspace: Path) -> str | None:
    """Returns the model folder with which `run` began last, empty if it had no scorer; None if it never began."""
    history = read_events(planned.step.log_dir(workspace) / HISTORY, "begun")
    folders = [event[_INPUT] for event in history if event.get("run") == run and isinstance(event.get(_INPUT), str)]
    return folders[-1] if folders else None


def _present_champion(config: PipelineConfig, workspace: Path) -> Outcome | None:
    try:
        champion = find_model(workspace, config.release.model_name, config.release.champion)
    except TrackerError as error:
        _LOGGER.warning("No champion scores the pictures, because the tracker does not answer: %s", error)
        return None
    return _open_model(champion.folder) if champion else None


def _portable_path(folder: Path, workspace: Path) -> str:
    """Returns the path relative to the workspace, which may be moved; a folder outside of it keeps its own path."""
    root, path = workspace.resolve(), folder.resolve()
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _open_model(folder: Path) -> Outcome:
    try:
        return Outcome(_INPUT, folder, require(folder, "pipeline"), reused=True)
    except FoundryError as error:
        raise FoundryError(
            f"The model that judged the pictures of this run can't be used: {error}",
            hint="`gme pipeline --new-run` takes the present champion.",
        ) from error
