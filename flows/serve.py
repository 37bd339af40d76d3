"""`make serve-prefect`: a server on the workspace's database, the pools, the deployments and a worker for each pool.

Programs of Prefect, started and ended together. Knows no flow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.server import PrefectServer, running_server
from gme_data.errors import FoundryError
from gme_data.programs import running_program

POOLS = ("cpu", "gpu")
_CHECKOUT = Path(__file__).resolve().parents[1]
POOL_TEMPLATE = _CHECKOUT / "flows" / "pool.json"
"""What a pool lets a run choose of its job: nothing. Prefect's own template lets it choose the command."""


@contextmanager
def running_schedules(workspace: Path, port: int | None = None, file: Path | None = None) -> Iterator[PrefectServer]:
    """The server; inside the block schedules fire and workers take what is due.

    Args:
        workspace: Holds the database, the logs (``runs/prefect/*.log``) and what the flows make.
        port: Of the server; a free one if None.
        file: Deployments; ``flows/prefect.yaml`` if None.

    Raises:
        FoundryError: The server does not come up, or Prefect refuses a deployment.
    """
    logs = workspace / "runs" / "prefect"
    with ExitStack() as stack:
        server = stack.enter_context(running_server(workspace, logs / "server.log", port))
        environment = {
            **os.environ,
            **server.environment,
            "GME_CHECKOUT": str(_CHECKOUT),
            "GME_WORKSPACE": str(workspace.resolve()),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        for pool in POOLS:
            template = ("--base-job-template", str(POOL_TEMPLATE))
            _prefect(environment, "work-pool", "create", pool, "--type", "process", *template, "--overwrite")
        deployments = str((file or _CHECKOUT / "flows" / "prefect.yaml").resolve())
        _prefect(environment, "--no-prompt", "deploy", "--all", "--prefect-file", deployments)
        for pool in POOLS:
            worker = ("worker", "start", "--pool", pool, "--limit", "1")
            log = logs / f"worker-{pool}.log"
            stack.enter_context(running_program("prefect", worker, environment, _CHECKOUT, log))
        yield server


def _prefect(environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=_CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise FoundryError(f"`prefect {' '.join(arguments)}` failed:\n{said}", exit_code=1)
