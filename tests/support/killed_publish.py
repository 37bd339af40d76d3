"""Stage 1 in a workspace, killed where told: ``python -m support.killed_publish WORLD WORKSPACE [FUNCTION]``.

`FUNCTION` is one of `gme_data.steps`, such as ``write_manifest``; the process dies, by SIGKILL, when it is called.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Never

from support.killed_run import CONFIG

from flows.chains import train_step
from gme_data import steps
from gme_data.manifest import Manifest


def die(*_: object) -> Never:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


def given(folder: Path) -> steps.Outcome:
    made = Manifest("given", "key", {}, "", {}, (), folder.name, {}, 0.0)
    return steps.Outcome("given", folder, made, reused=True)


def main(world: Path, workspace: Path, functions: list[str]) -> None:
    for name in functions:
        assert callable(getattr(steps, name))
        setattr(steps, name, die)
    inputs = {name: given(world / name) for name in ("corpus", "synthetic")}
    stage = train_step("train-1", "stage_1", "checkpoints/stage1", {})
    steps.execute(steps.PlannedStep(stage, CONFIG, inputs), workspace)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
