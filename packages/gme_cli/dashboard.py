"""`gme dashboard`: both UIs on what the runs of this workspace wrote."""

from __future__ import annotations

from gme_cli.options import Common

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
    from flows.server import prefect_environment
    from gme_release.dashboard import serve_dashboards

    serve_dashboards(
        common.workspace,
        prefect_environment(common.workspace),
        mlflow_port=mlflow_port,
        prefect_port=prefect_port,
    )
