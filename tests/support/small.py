"""A workspace for the small pipeline, driven by the command line as a user would."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gme_cli.main import run

HERE = Path(__file__).resolve().parents[1] / "flows"
CONFIG = HERE / "small.yaml"
GME = Path(sys.executable).parent / "gme"
KILL_DEADLINE_SECONDS = 240


@dataclass(frozen=True)
class Small:
    """A workspace and the command line on it."""

    workspace: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(GME), *arguments, "--config", str(CONFIG), "--workspace", str(self.workspace)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    def json_here(self, *arguments: str) -> Any:
        """What the command prints, run in this process: the start of another takes longer than a short command."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert run([*self.command(*arguments)[1:], "--json"]) == 0, printed.getvalue()
        return json.loads(printed.getvalue())

    def kill_when(self, ready: Callable[[], bool], *arguments: str) -> None:
        """Start the command, wait until `ready`, and kill -9 its whole process group."""
        log = self.workspace / "killed.log"
        with log.open("w") as out:  # a pipe would be held open by what outlives the killed parent
            process = subprocess.Popen(self.command(*arguments), stdout=out, stderr=out, start_new_session=True)
            deadline = time.monotonic() + KILL_DEADLINE_SECONDS
            while not ready():
                assert process.poll() is None, f"ended before it could be killed: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def copy(self, target: Path, *parts: str) -> Small:
        """A new workspace with the named folders and files of this one."""
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "promotion.yaml", target)
        for part in parts:
            source = self.workspace / part
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target / part, symlinks=True)
        return Small(target)
