"""`gme dashboard`: the UIs of MLflow and Prefect on the records of a workspace."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from gme_cli.options import DryRunOptions, WorkspaceOptions, say

if TYPE_CHECKING:
    from flows.server import PrefectServer


@Parameter(name="*")
@dataclass(frozen=True)
class ServerOptions(DryRunOptions, WorkspaceOptions):
    """Options of verbs that serve a workspace until they are stopped."""


_SERVER = ServerOptions()


@dataclass(frozen=True, slots=True)
class Dashboards:
    """The running servers: MLflow's address, and Prefect's address with its secret."""

    mlflow: str
    prefect: PrefectServer


def dashboard(
    *, mlflow_port: int | None = None, prefect_port: int | None = None, common: ServerOptions = _SERVER
) -> None:
    """Start the MLflow and Prefect servers and print their addresses; Ctrl-C stops both.

    Parameters
    ----------
    mlflow_port
        A free port is chosen if none is given.
    prefect_port
        A free port is chosen if none is given.
    """
    if common.dry_run:
        chosen = {"MLflow": mlflow_port, "Prefect": prefect_port}
        ports = ", ".join(f"{name} on port {port or 'of its choice'}" for name, port in chosen.items())
        say(f"Would serve the records of {common.workspace.resolve()}: {ports}.")
        return
    say("Starting the MLflow and Prefect servers ...")
    with running_dashboards(common.workspace, mlflow_port, prefect_port) as servers:
        say(f"MLflow   {servers.mlflow}   runs, metrics, models")
        say(f"Prefect  {servers.prefect.url}   flow runs, artifacts. Log in with  {servers.prefect.secret}")
        say("Ctrl-C stops both.")
        try:
            signal.pause()  # until Ctrl-C, or SIGTERM, which `main` turns into the same
        except KeyboardInterrupt:
            say("Stopping ...")


@contextmanager
def running_dashboards(
    workspace: Path, mlflow_port: int | None = None, prefect_port: int | None = None
) -> Iterator[Dashboards]:
    """Runs both servers in the block; they are healthy when it begins.

    Raises:
        FoundryError: Nothing was recorded yet, a port is taken, or a server does not come up.
    """
    from flows.server import await_server, launched_server
    from gme_release.tracking.dashboard import await_mlflow, launched_mlflow

    log = workspace / "runs" / "dashboard" / "prefect.log"
    with ExitStack() as stack:
        # Both are launched before either is awaited: each needs several seconds.
        mlflow, mlflow_program = stack.enter_context(launched_mlflow(workspace, mlflow_port))
        prefect, prefect_program = stack.enter_context(launched_server(workspace, log, prefect_port))
        await_mlflow(mlflow, mlflow_program, workspace)
        await_server(prefect, prefect_program, log)
        yield Dashboards(mlflow, prefect)
