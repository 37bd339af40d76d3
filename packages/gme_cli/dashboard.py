"""`gme dashboard`: both UIs on what the runs of this workspace wrote."""

from __future__ import annotations

from gme_cli.options import Common, say

_COMMON = Common()


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
    from flows.server import prefect_environment
    from gme_release.dashboard import serve_dashboards

    serve_dashboards(
        common.workspace,
        prefect_environment(common.workspace),
        mlflow_port=mlflow_port,
        prefect_port=prefect_port,
    )
