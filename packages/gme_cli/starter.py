"""`gme starter`: make, and if asked ship, the checkpoint that the default run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gme_cli.options import say


def starter(
    *,
    config: Annotated[Path, Parameter(name=["--config", "-c"])] = Path("configs/starter.yaml"),
    overrides: Annotated[tuple[str, ...], Parameter(name=["--set"], negative="")] = (),
    workspace: Path = Path(),
    downloads: Path | None = None,
    ship_it: Annotated[bool, Parameter(name="--ship", negative="")] = False,
) -> None:
    """Run stage 0: hours on two cores. What is done is not done again, and a killed step goes on where it was.

    Parameters
    ----------
    config
        The recipe.
    overrides
        Set a field on top of the file, e.g. --set stage_0.seed=5; may be repeated.
    workspace
        The folder that holds data, checkpoints and runs.
    downloads
        Where package files are kept; data/packages of the workspace if not given.
    ship_it
        Put the result beside the code, so that runs start from it.
    """
    from flows.ship import ship
    from flows.starter import StageZeroConfig, make_starter
    from gme_data.settings import load_config
    from gme_embedder.starter import WEIGHTS

    recipe = load_config(config, StageZeroConfig, overrides)
    workspace = workspace.resolve()
    made = make_starter(recipe, workspace, (downloads or workspace / "data" / "packages").resolve())
    say(f"starter: {made.starter.folder}, scores: {made.scores.folder}")
    if ship_it:
        say(f"shipped: {ship(made, recipe, WEIGHTS.parent)}")
