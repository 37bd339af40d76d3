"""A real server with the real deployments: a schedule fires, a worker takes the run, and it closes what is dead.

And it is attacked: a page that the user opens asks for a run, and one who knows the secret wants to choose its command.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.utilities.schema_tools import ValidationError, validate
from prefect.workers.process import ProcessJobConfiguration
from support.intruder import EVIL, REBOUND, listening, send

from flows.deployments import POOL_TEMPLATE, running_schedules
from flows.flow_start import PROCESS_LABEL, has_ended, process_label
from flows.server import PrefectServer

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600


def ask(server: PrefectServer, path: str, body: Any) -> Any:
    deadline = time.monotonic() + 120
    while True:
        reply = send(server.url, "POST", f"/api/{path}", body, secret=server.secret)
        if reply.status != 503 or time.monotonic() > deadline:  # its database is busy on a small machine
            break
        time.sleep(1)
    assert reply.status < 300, reply
    return reply.json()


def ended_process() -> str:
    """The sign of a process that is gone."""
    code = "from flows.flow_start import process_label; print(process_label())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def begun(server: PrefectServer, process: str) -> str:
    """A flow run that says it is running; its id."""
    flow = ask(server, "flows/", {"name": "stand-in"})["id"]
    state = {"type": "RUNNING", "name": "Running"}
    return str(ask(server, "flow_runs/", {"flow_id": flow, "state": state, "labels": {PROCESS_LABEL: process}})["id"])


def states(server: PrefectServer, body: dict[str, Any]) -> list[str]:
    return [run["state_type"] for run in ask(server, "flow_runs/filter", body)]


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = process_label()
    machine, pid, began = mine.rsplit(":", 2)
    assert has_ended(mine) is False
    assert has_ended(f"{machine}:{pid}:{int(began) - 60}") is True
    assert has_ended(f"elsewhere:{pid}:{began}") is None
    for no_sign in ("", "planted", f"{machine}:x:y"):
        assert has_ended(no_sign) is None


@pytest.mark.hardening("attacks", "A1", "A web page, or anyone without the secret, asks the local Prefect for a run")
def test_a_pool_leaves_a_run_nothing_to_choose() -> None:
    """As the server and the worker read the template."""
    template = json.loads(POOL_TEMPLATE.read_text())
    asked = {"command": "id", "env": {"LD_PRELOAD": "x"}, "env.PYTHONPATH": "x", "working_dir": "/tmp", "name": "x"}  # noqa: S108
    for name, value in asked.items():
        with pytest.raises(ValidationError):
            validate({name: value}, template["variables"], raise_on_error=True, preprocess=True)
    unused = PrefectClient("http://127.0.0.1:1/api")  # the template refers to nothing that a server keeps
    made = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, asked, client=unused))
    assert (made.command, made.env, made.working_dir, made.name) == (None, {}, None, None)


def attack(server: PrefectServer, marker: Path) -> str:
    """Ask for runs that make `marker`; the id of the one that the server takes."""
    command = {"command": f"touch {marker}"}
    [sweep] = [one for one in ask(server, "deployments/filter", {}) if one["name"] == "sweep"]
    path = f"/api/deployments/{sweep['id']}/create_flow_run"
    for headers in ({"Origin": EVIL}, {"Origin": EVIL, "Host": REBOUND}, {}):
        reply = send(server.url, "POST", path, {"job_variables": command}, **headers)
        assert (reply.status, reply.lets_pages_read) == (401, False)
    for variables in (command, {"env": {"PYTHONSTARTUP": str(marker)}}, {"working_dir": str(marker.parent)}):
        reply = send(server.url, "POST", path, {"job_variables": variables}, secret=server.secret)
        assert reply.status == 422, reply
        assert "Additional properties are not allowed" in reply.body.decode()
    # What the server does not look at: a run without `create_flow_run`.
    run = {
        "flow_id": sweep["flow_id"],
        "deployment_id": sweep["id"],
        "parameters": {"request": {}},
        "state": {"type": "SCHEDULED"},
        "work_pool_name": "cpu",
        "job_variables": command,
    }
    return str(ask(server, "flow_runs/", run)["id"])


def says_nothing(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: {REBOUND}\r\nOrigin: {EVIL}\r\n\r\n".encode())
            return not connection.recv(100)
    except ConnectionError:  # it is closed by now
        return True


def worker_log(workspace: Path) -> str:
    return (workspace / "runs/prefect/worker-cpu.log").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.hardening("attacks", "A1", "A web page, or anyone without the secret, asks the local Prefect for a run")
def test_a_schedule_fires_and_its_run_closes_what_is_dead(tmp_path: Path) -> None:
    file = ROOT / "flows" / "prefect.yaml"
    every_minute = tmp_path / "prefect.yaml"
    every_minute.write_text(file.read_text().replace("*/15 * * * *", "* * * * *"))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    listened = listening()
    with running_schedules(tmp_path, file=every_minute) as server:
        names = {deployment["name"] for deployment in ask(server, "deployments/filter", {})}
        assert {"weekly", "synthesize", "train-1", "evaluate", "study", "sweep"} <= names
        planted = attack(server, tmp_path / "marker")
        dead, alive = begun(server, ended_process()), begun(server, process_label())
        finished = {
            "deployments": {"name": {"any_": ["sweep"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not states(server, finished):
            assert time.monotonic() < deadline, worker_log(tmp_path)
            time.sleep(1)
        assert states(server, {"flow_runs": {"id": {"any_": [dead]}}}) == ["CRASHED"]
        assert states(server, {"flow_runs": {"id": {"any_": [alive]}}}) == ["RUNNING"]
        of_planted = {"flow_runs": {"id": {"any_": [planted]}}}
        while states(server, of_planted) not in (["FAILED"], ["CRASHED"]):
            assert time.monotonic() < deadline, (states(server, of_planted), worker_log(tmp_path))
            time.sleep(1)
        [run] = ask(server, "flow_runs/filter", of_planted)
        assert "The run brings job variables (command)" in run["state"]["message"]
        assert not (tmp_path / "marker").exists()
        more = listening() - listened - {("127.0.0.1", urlsplit(server.url).port)}
        # Workers listen to the processes of their runs, for a token that serves once; to others they are deaf.
        assert all(host == "127.0.0.1" and says_nothing(port) for host, port in more), more
        weekly = {"deployments": {"name": {"any_": ["weekly"]}}}
        assert set(states(server, weekly)) == {"SCHEDULED"}
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert not left
    assert not listening() - listened
