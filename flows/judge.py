"""Which champion judges the pictures of a run: chosen when its training data are first made, kept by every rerun.

A run is told by config, corpus and code of the synthesis. Without that memory the champion that a run ends with would
change the run's own inputs, and no pipeline would ever be finished. A new run is one of those three changed, or
`forget`. Knows what a champion is, not how it judges.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from flows.config import PipelineConfig
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.manifest import require
from gme_data.steps import Outcome
from gme_data.structured import read_json
from gme_release.champion import find
from gme_release.trouble import TrackerError

_LOGGER = logging.getLogger(__name__)
_KEPT = Path("runs") / "steps" / "synthesize" / "judges.json"


def judge_of(run: str, config: PipelineConfig, workspace: Path, *, anew: bool = False) -> Outcome | None:
    """The model that judges the pictures of `run` (a step key); None if there is none or none is wanted.

    With `anew` it is the one that would judge after `forget`.

    Raises:
        FoundryError: Its files are missing or damaged.
    """
    if config.synthesis.picture_filter == "none":
        return None
    kept = {} if anew else _read(workspace)
    if run in kept:
        return _opened(workspace / kept[run]) if kept[run] else None
    try:
        champion = find(workspace, config.release.model_name, config.release.champion)
    except TrackerError as error:
        _LOGGER.warning("No champion judges the pictures, because the tracker does not answer: %s", error)
        return None
    return _opened(champion.folder) if champion else None


def keep(run: str, judge: Outcome | None, workspace: Path) -> None:
    """Remember who judges `run`, so that its reruns find the same data done."""
    kept = {**_read(workspace), run: _named(judge.folder, workspace) if judge else ""}
    (workspace / _KEPT).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(workspace / _KEPT, json.dumps(kept, indent=1).encode())


def _named(folder: Path, workspace: Path) -> str:
    """Relative, so that a workspace may be moved; absolute for what lies outside of it."""
    here, there = workspace.resolve(), folder.resolve()
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()


def forget(workspace: Path) -> None:
    """Begin a new run: the champion of today judges next."""
    (workspace / _KEPT).unlink(missing_ok=True)


def _opened(folder: Path) -> Outcome:
    try:
        return Outcome("judge", folder, require(folder, "pipeline"), reused=True)
    except FoundryError as error:
        raise FoundryError(
            f"The model that judged the pictures of this run can't be used: {error}",
            hint="`gme pipeline --new-run` takes the present champion.",
        ) from error


def _read(workspace: Path) -> dict[str, str]:
    """Folder of the judge, relative to the workspace, by run; empty if nobody judged."""
    try:
        return read_json(workspace / _KEPT, dict[str, str], hint="Delete it; the next run is a new one.")
    except FileNotFoundError:
        return {}
