"""`gme atlas build` and `gme atlas show`: the embedded world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, WorkspaceOptions, say
from gme_cli.steps import run_verb

app = App(name="atlas", help="Build the embedded world, or look at it.")
_COMMON, _WORKSPACE = Common(), WorkspaceOptions()


@app.command
def build(*, common: Common = _COMMON) -> None:
    """Build corpus, examples and tasks from the installed packages into data/atlas."""
    run_verb("corpus", common)


@app.command
def show(
    *,
    task: Annotated[str, Parameter(name=["--task", "-t"])],
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("atlas-sheet.html"),
    count: int = 12,
    split: str = "test",
    common: WorkspaceOptions = _WORKSPACE,
) -> None:
    """Write a contact sheet: queries of a task type with their pictures and what answers them.

    Parameters
    ----------
    task
        A task type, e.g. "IT->I".
    out
        The file to write; .html or .png.
    count
        How many queries to show.
    split
        dev or test.
    """
    from atlas.contact_sheet import contact_sheet
    from flows.chain import published_outcome
    from flows.chains import ATLAS

    folder = published_outcome(ATLAS, common.workspace).folder
    contact_sheet(folder, task, out, count, split=split)
    say(str(out))
