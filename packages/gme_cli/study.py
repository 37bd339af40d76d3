"""`gme study`: train variants of a pipeline with several seeds, and compare them in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gme_cli.options import say


def study(
    file: Path,
    *,
    overrides: Annotated[tuple[str, ...], Parameter(name=["--set"], negative="")] = (),
    workspace: Path = Path(),
) -> None:
    """Train every variant with every seed, score it, and write runs/studies/NAME/table.md. A killed study is resumed.

    Parameters
    ----------
    file
        The study, such as configs/studies/seeds.yaml.
    overrides
        Set a field on top of the file, e.g. --set split=test; may be repeated.
    workspace
        The folder that holds data and runs.
    """
    from flows.study import StudyConfig, study_table
    from flows.study import study as run_study
    from gme_data.settings import load_config

    config = load_config(file, StudyConfig, overrides)
    workspace = workspace.resolve()
    text = study_table(run_study(config, workspace))
    (workspace / "runs" / "studies" / config.name / "table.md").write_text(text, encoding="utf-8")
    say(text)
