"""What orchestration and records cost: ``python benchmarks/bench_overhead.py [CONFIG]`` (tests/flows/small.yaml).

* ``plain``: the links of the chain called one after the other in one process; no Prefect, MLflow or DVC.
* ``pipeline``: `gme pipeline` from nothing on the same config; the difference is the overhead. Two steps may run at
  once there, so it may be negative.
* ``rerun``: `gme pipeline` again, which must reuse every step and return the same version.
* ``changed``: again with one setting of the evaluation changed; which steps ran is printed.

Both sides must make the same datasets before a figure is printed. Wall seconds, one run each: wants the machine for
itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flows.chain import run_in_order
from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data.environment import set_default_env

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "tests" / "flows" / "small.yaml"
EXACT = ("corpus", "synthesize")  # training is compared by nothing: a later run may round otherwise


def plain(config: Path, workspace: Path) -> None:
    """The steps alone; prints the content of each."""
    done = run_in_order(pipeline_chain(load_pipeline(config)), workspace)
    sys.stdout.write(json.dumps({name: outcome.manifest.content for name, outcome in done.items()}))


def timed(*command: str) -> tuple[float, Any]:
    """Wall seconds of a command and the JSON that it printed."""
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return time.monotonic() - started, json.loads(done.stdout)


def main() -> None:
    """Run the four and print their figures."""
    set_default_env()
    config = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SMALL
    with tempfile.TemporaryDirectory() as home:
        alone, whole = Path(home) / "alone", Path(home) / "whole"
        for workspace in (alone, whole):
            workspace.mkdir()
            if config == SMALL:
                shutil.copy(config.parent / "promotion.yaml", workspace)
        plain_seconds, contents = timed(sys.executable, __file__, "--plain", str(config), str(alone))
        gme = (sys.executable, "-m", "gme_cli.main", "pipeline", "--json", "--config", str(config))
        gme = (*gme, "--workspace", str(whole))
        first_seconds, first = timed(*gme)
        assert all(contents[name] == first["steps"][name]["content"] for name in EXACT), "the two made different data"
        rerun_seconds, again = timed(*gme)
        assert all(step["reused"] for step in again["steps"].values()), "the rerun did something again"
        assert (again["version"], again["created"]) == (first["version"], False), "the rerun registered something"
        changed_seconds, changed = timed(*gme, "--set", "evaluation.scoring.resamples=101")
    extra = first_seconds - plain_seconds
    redone = [name for name, step in changed["steps"].items() if not step["reused"]]
    sys.stdout.write(
        f"plain     {plain_seconds:7.1f} s\n"
        f"pipeline  {first_seconds:7.1f} s   {extra:+.1f} s, {extra / plain_seconds:+.1%} of plain\n"
        f"rerun     {rerun_seconds:7.1f} s   nothing redone, version {again['version']}\n"
        f"changed   {changed_seconds:7.1f} s   redone: {', '.join(redone)}\n"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
