"""`gme schedules` and `gme slots`: serve the deployments of this checkout, and list the slots that they fired."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from cyclopts import Parameter

from gme_cli.dashboard import ServerOptions
from gme_cli.options import JsonOptions, WorkspaceOptions, print_json, say


@Parameter(name="*")
@dataclass(frozen=True)
class SlotOptions(JsonOptions, WorkspaceOptions):
    """Options of `gme slots`."""


_SERVER, _SLOTS = ServerOptions(), SlotOptions()


def schedules(*, port: int | None = None, common: ServerOptions = _SERVER) -> None:
    """Start a Prefect server with the deployments of flows/prefect.yaml and a worker for each pool; Ctrl-C stops all.

    Parameters
    ----------
    port
        Port of the server; a free one is chosen if none is given.
    """
    if common.dry_run:
        say(f"Would serve flows/prefect.yaml on the workspace {common.workspace.resolve()}.")
        return
    # Imported after the dry run, which needs no Prefect.
    from flows.deployments import running_schedules

    say("Starting server, deployments and workers ...")
    with running_schedules(common.workspace, port) as server:
        say(f"Prefect  {server.url}   schedules, runs, artifacts. Log in with  {server.secret}")
        say("Ctrl-C stops all.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            say("Stopping ...")


def slots(*, common: SlotOptions = _SLOTS) -> None:
    """List the slots of scheduled pipelines: done, behind the gate, failed, skipped, running or killed."""
    from flows.slots import is_alive, slot_records

    states = [
        (record, "killed" if record.state == "running" and not is_alive(record, common.workspace) else record.state)
        for record in slot_records(common.workspace)
    ]
    if common.json:
        print_json([{**record.model_dump(mode="json"), "state": state} for record, state in states])
        return
    for record, state in states:
        line = f"{record.pipeline:<12} {record.slot:%Y-%m-%d %H:%M} UTC  {state:<12} {record.detail}"
        say(line.rstrip())
    if not states:
        say("No slot was fired in this workspace.")
