"""`python -m research.starter`, which `make starter` calls: trains the checkpoint that the default run starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.chain import plan
from gme_cli.options import say
from gme_cli.states import show_states
from gme_data.errors import FoundryError
from gme_data.settings import load_config
from gme_embedder.starter import WEIGHTS
from research.starter.chain import StageZeroConfig, make_starter, stage_zero_chain
from research.starter.ship import ship

app = App(name="python -m research.starter", version_flags=())


@app.default
def starter(
    *,
    config: Annotated[Path, Parameter(name=["--config", "-c"])] = Path("research/starter.yaml"),
    overrides: Annotated[tuple[str, ...], Parameter(name=["--set"], negative="")] = (),
    workspace: Path = Path(),
    downloads: Path | None = None,
    ship_it: Annotated[bool, Parameter(name="--ship", negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run stage 0, which takes hours on two cores. A step that is done isn't run again; a killed one is resumed.

    Parameters
    ----------
    config
        The recipe.
    overrides
        Set a field on top of the file, e.g. --set stage_0.seed=5; may be repeated.
    workspace
        The folder that holds data, checkpoints and runs.
    downloads
        The folder of package files; data/packages of the workspace if not given.
    ship_it
        Copy the weights, the recipe and the model card into the package that loads them.
    dry_run
        Print which steps would run, and why, and run none.
    """
    workspace = workspace.resolve()
    downloads = (downloads or workspace / "data" / "packages").resolve()
    recipe = load_config(config, StageZeroConfig, overrides)
    if dry_run:
        show_states(plan(stage_zero_chain(recipe), workspace), json=False)
        return
    outcomes = make_starter(recipe, workspace, downloads)
    say(f"starter: {outcomes.starter.folder}, scores: {outcomes.scores.folder}")
    if ship_it:
        say(f"shipped: {ship(outcomes, recipe, WEIGHTS.parent)}")


if __name__ == "__main__":
    try:
        app()
    except FoundryError as error:
        sys.stderr.write(f"Error: {error}\n" + (f"  → {error.hint}\n" if error.hint else ""))
        sys.exit(error.exit_code)
