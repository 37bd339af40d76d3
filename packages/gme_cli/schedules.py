"""`gme schedules` and `gme slots`: fire the deployments of this checkout on this machine, and what became of them."""

from __future__ import annotations

import signal

from gme_cli.options import Common, print_json, say

_COMMON = Common()


def schedules(*, port: int | None = None, common: Common = _COMMON) -> None:
    """Start a Prefect server with the deployments of flows/prefect.yaml and a worker for each pool; Ctrl-C stops all.

    Parameters
    ----------
    port
        Of the server; a free one is chosen if none is given.
    """
    if common.dry_run:
        say(f"Would serve flows/prefect.yaml on the workspace {common.workspace.resolve()}.")
        return
    from flows.deployments import running_schedules

    say("Starting server, deployments and workers ...")
    with running_schedules(common.workspace, port) as server:
        say(f"Prefect  {server.url}   schedules, runs, artifacts. Log in with  {server.secret}")
        say("Ctrl-C stops all.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            say("Stopping ...")


def slots(*, common: Common = _COMMON) -> None:
    """List the slots of scheduled pipelines: done, behind the gate, failed, skipped, running or killed."""
    from flows.slots import is_alive, slot_records

    found = slot_records(common.workspace)
    shown = [
        (record, "killed" if record.state == "running" and not is_alive(record, common.workspace) else record.state)
        for record in found
    ]
    if common.json:
        print_json([{**record.model_dump(mode="json"), "state": state} for record, state in shown])
        return
    for record, state in shown:
        line = f"{record.pipeline:<12} {record.slot:%Y-%m-%d %H:%M} UTC  {state:<12} {record.detail}"
        say(line.rstrip())
    if not shown:
        say("No slot was fired in this workspace.")
