"""Command line: ``python -m atlas.starter --workspace FOLDER --downloads FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from atlas.starter.config import StarterConfig
from atlas.starter.step import run
from gme_data.errors import FoundryError
from gme_data.manifest import require
from gme_data.steps import Outcome, PlannedStep, Step, execute

CORPUS = "data/atlas"


def main() -> int:
    """Build the starter's data and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m atlas.starter", description="Build the starter checkpoint's data.")
    parser.add_argument("--workspace", type=Path, default=Path(), help="has data/atlas, gets data/starter")
    parser.add_argument("--downloads", type=Path, help="where package files are kept (default: data/packages there)")
    parser.add_argument("--pictures", type=int, default=StarterConfig().pictures, help="at most so many pictures")
    given = parser.parse_args()
    downloads = given.downloads or given.workspace / "data" / "packages"
    folder = given.workspace / CORPUS
    try:
        atlas = Outcome("corpus", folder, require(folder, "atlas build"), reused=True)
        config = StarterConfig(pictures=given.pictures, downloads=downloads.absolute())
        outcome = execute(
            PlannedStep(Step("starter-data", run, "data/starter"), config, {"corpus": atlas}), given.workspace
        )
    except FoundryError as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    for name, count in outcome.manifest.counts.items():
        sys.stdout.write(f"{count:>9,.0f}  {name}\n")
    sys.stdout.write(f"{outcome.folder} " + ("is there already.\n" if outcome.reused else "made.\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
