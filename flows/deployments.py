"""`make serve-prefect`: a server on the workspace's database, work pools, deployments, and a worker for each pool.

These programs of Prefect are started and ended together. Knows no flow.
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
"""Work pools of the deployments."""
_CHECKOUT = Path(__file__).resolve().parents[1]
POOL_TEMPLATE = _CHECKOUT / "flows" / "pool.json"
"""Job template of the pools. It lets a run choose nothing; with Prefect's own template a run chooses its command."""


@contextmanager
def running_schedules(workspace: Path, port: int | None = None, file: Path | None = None) -> Iterator[PrefectServer]:
    """Yields the server; in the block, schedules fire and workers take runs that are due.

    Args:
        workspace: Folder of the database, the logs (``runs/prefect/*.log``) and the outputs of the flows.
        port: Port of the server; a free one if None.
        file: File of the deployments; ``flows/prefect.yaml`` if None.

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
            # --overwrite, so that a pool with another job template gets ours.
            _run_prefect(environment, "work-pool", "create", pool, "--type", "process", *template, "--overwrite")
        deployments = str((file or _CHECKOUT / "flows" / "prefect.yaml").resolve())
        _run_prefect(environment, "--no-prompt", "deploy", "--all", "--prefect-file", deployments)
        for pool in POOLS:
            # One run at a time: two trainings would share the machine's memory.
            worker = ("worker", "start", "--pool", pool, "--limit", "1")
            log = logs / f"worker-{pool}.log"
            stack.enter_context(running_program("prefect", worker, environment, _CHECKOUT, log))
        yield server


def _run_prefect(environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    completed = subprocess.run(command, cwd=_CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode:
        output = (completed.stderr or completed.stdout).strip()[-800:]
        raise FoundryError(f"`prefect {' '.join(arguments)}` failed:\n{output}", exit_code=1)
