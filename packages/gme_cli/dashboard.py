"""`gme dashboard`: both UIs on what the runs of this workspace wrote."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gme_cli.options import Common, say

if TYPE_CHECKING:
    from flows.server import PrefectServer

_COMMON = Common()


@dataclass(frozen=True, slots=True)
class Dashboards:
    """The running servers: MLflow's address, and Prefect's with its secret."""

    mlflow: str
    prefect: PrefectServer


def dashboard(*, mlflow_port: int | None = None, prefect_port: int | None = None, common: Common = _COMMON) -> None:
    """Start the MLflow and Prefect servers and print their addresses; Ctrl-C stops both.

    Parameters
    ----------
    mlflow_port
        A free port is chosen if none is given.
    prefect_port
        A free port is chosen if none is given.
    """
    if common.dry_run:
        asked = {"MLflow": mlflow_port, "Prefect": prefect_port}
        ports = ", ".join(f"{name} on port {port or 'of its choice'}" for name, port in asked.items())
        say(f"Would serve the records of {common.workspace.resolve()}: {ports}.")
        return
    say("Starting the MLflow and Prefect servers ...")
    with running_dashboards(common.workspace, mlflow_port, prefect_port) as shown:
        say(f"MLflow   {shown.mlflow}   runs, metrics, models")
        say(f"Prefect  {shown.prefect.url}   flow runs, artifacts. Log in with  {shown.prefect.secret}")
        say("Ctrl-C stops both.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            say("Stopping ...")


@contextmanager
def running_dashboards(
    workspace: Path, mlflow_port: int | None = None, prefect_port: int | None = None
) -> Iterator[Dashboards]:
    """Both servers, healthy inside the block and gone after it.

    Raises:
        FoundryError: Nothing was recorded yet, a port is taken, or a server does not come up.
    """
    from flows.server import await_server, launched_server
    from gme_release.tracking.dashboard import await_mlflow, launched_mlflow

    log = workspace / "runs" / "dashboard" / "prefect.log"
    with ExitStack() as stack:
        # Both start at once: each needs several seconds.
        mlflow, mlflow_program = stack.enter_context(launched_mlflow(workspace, mlflow_port))
        prefect, prefect_program = stack.enter_context(launched_server(workspace, log, prefect_port))
        await_mlflow(mlflow, mlflow_program, workspace)
        await_server(prefect, prefect_program, log)
        yield Dashboards(mlflow, prefect)
