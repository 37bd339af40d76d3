"""`gme dashboard`: both servers show what was recorded, to their user and to nobody else."""

from __future__ import annotations

import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.environment_variables
import pytest
from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request
from release_miniature import build_workspace
from support.intruder import EVIL, REBOUND, listening, send
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from flows.secret import secret_path
from gme_cli.dashboard import Dashboards, running_dashboards
from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.registry.registration import register
from gme_release.run_facts import RunFacts
from gme_release.settings import local_database

GUARDED = (
    ("POST", "/api/flow_runs/filter"),
    ("POST", "/api/deployments/filter"),
    ("POST", "/api/flows/"),
    ("GET", "/api/admin/settings"),
    ("GET", "/api/admin/version"),
    ("POST", "/api/admin/database/clear"),
    ("GET", "/api/csrf-token?client=x"),
    ("GET", "/api//health"),
    ("GET", "/api/health/"),
)


@dataclass(frozen=True)
class Served:
    facts: RunFacts
    run: str
    shown: Dashboards


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Served]:
    workspace = tmp_path_factory.mktemp("dashboard")
    local_database(workspace).parent.mkdir(parents=True)
    shutil.copy(empty_database, local_database(workspace))
    facts = build_workspace(workspace)
    run = register(workspace, ReleaseConfig(), facts).run_id
    before = listening()
    with running_dashboards(workspace) as shown:
        ports = {("127.0.0.1", urlsplit(url).port) for url in (shown.mlflow, shown.prefect.url)}
        assert listening() - before == ports  # and at no further one
        yield Served(facts, run, shown)
    for url in (shown.mlflow, shown.prefect.url):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=20)  # noqa: S310 - our own address


def test_both_show_what_was_recorded(served: Served) -> None:
    mlflow, prefect = served.shown.mlflow, served.shown.prefect
    assert b"<html" in send(mlflow, "GET", "/").body
    run = send(mlflow, "GET", f"/ajax-api/2.0/mlflow/runs/get?run_id={served.run}").json()
    assert run["run"]["info"]["status"] == "FINISHED"
    page = send(mlflow, "GET", f"/get-artifact?run_id={served.run}&path=report/report.html")
    assert page.body == b"<h1>Report</h1>"
    assert b"<html" in send(prefect.url, "GET", "/dashboard", Accept="text/html").body
    told = send(prefect.url, "GET", "/ui-settings").json()
    # The page must ask the API of this very server, not one at Prefect's default port, and for the secret.
    assert (told["api_url"], told["auth"]) == (f"{prefect.url}/api", "BASIC")
    assert send(prefect.url, "POST", "/api/flow_runs/filter", {}, secret=prefect.secret).json() == []


@pytest.mark.hardening("attacks", "A1", "A web page, or anyone without the secret, asks the local Prefect for a run")
def test_prefect_obeys_nobody_without_the_secret(served: Served) -> None:
    server = served.shown.prefect
    for secret in (None, "", "gme:", server.secret[:-1], f"{server.secret}x"):
        for method, path in (
            ("POST", "/api/flow_runs/filter"),
            ("POST", "/api/deployments/filter"),
            ("POST", "/api/flows/"),
            ("GET", "/api/admin/settings"),
            ("DELETE", "/api/admin/database/clear"),
            ("GET", "/api/csrf-token?client=x"),
            ("GET", "/api/metrics"),
            ("GET", "/api//version"),
        ):
            reply = send(server.url, method, path, {"name": "planted"}, secret=secret, Origin=EVIL)
            assert (reply.status, reply.lets_pages_read) == (401, False), (secret, path)
    assert send(server.url, "POST", "/api/flows/filter", {}, secret=server.secret).json() == []


@pytest.mark.hardening("attacks", "A1", "A web page, or anyone without the secret, asks the local Prefect for a run")
def test_no_page_of_another_origin_reads_prefect(served: Served) -> None:
    server = served.shown.prefect
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    for origin in (
        EVIL,
        "null",
        "http://127.0.0.1:1",
        f"{server.url}.evil.example",
        server.url.replace("127.0.0.1", "localhost"),
    ):
        reply = send(server.url, "OPTIONS", "/api/flow_runs/filter", Origin=origin, **asked)
        assert (reply.status, reply.lets_pages_read) == (400, False), origin
        for path in ("/api/health", "/api/version", "/ui-settings"):
            assert not send(server.url, "GET", path, secret=server.secret, Origin=origin).lets_pages_read
    assert send(server.url, "OPTIONS", "/api/flow_runs/filter", Origin=server.url, **asked).status == 200


@pytest.mark.hardening("attacks", "A2", "A name of the attacker's that points at this machine (DNS rebinding)")
def test_a_rebound_name_gets_nothing_of_prefect(served: Served) -> None:
    url = served.shown.prefect.url
    host = f"{REBOUND}:{urlsplit(url).port}"
    reply = send(url, "POST", "/api/deployments/filter", {}, Host=host, Origin=f"http://{host}")
    assert (reply.status, reply.lets_pages_read) == (401, False)


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
@pytest.mark.hardening("attacks", "A1", "A web page, or anyone without the secret, asks the local Prefect for a run")
def test_no_socket_opens_without_the_secret(served: Served, path: str) -> None:
    url = f"{served.shown.prefect.url}/api/{path}".replace("http://", "ws://")
    with pytest.raises(WebSocketException), connect(url, origin=EVIL) as one:  # type: ignore[arg-type]
        one.recv(timeout=20)
    with connect(url, subprotocols=[Subprotocol("prefect")]) as one:
        one.send('{"type": "auth", "token": "gme:guessed"}')
        with pytest.raises(ConnectionClosed):
            one.recv(timeout=20)


def test_the_secret_stands_in_its_file_alone(served: Served) -> None:
    secret, workspace = served.shown.prefect.secret, served.facts.workspace
    assert secret_path(workspace).stat().st_mode & 0o777 == 0o600
    holders = [path for path in workspace.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holders == [secret_path(workspace)]


@pytest.mark.hardening("attacks", "A3", "Foreign hosts and origins at MLflow")
def test_mlflow_answers_to_its_own_names_alone(served: Served) -> None:
    url = served.shown.mlflow
    port = urlsplit(url).port
    path = "/ajax-api/2.0/mlflow/experiments/search"
    for host in (
        REBOUND,
        f"{REBOUND}:{port}",
        "192.168.1.1.evil.example",
        f"10.0.0.1.evil.example:{port}",
        "172.16.evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        f"localhost:{port}.evil.example",
        f"0.0.0.0:{port}",
    ):
        assert send(url, "POST", path, {"max_results": 1}, Host=host).status == 403, host
    for origin in (EVIL, "null", f"http://192.168.1.1:{port}", f"http://127.0.0.1.evil.example:{port}"):
        reply = send(url, "POST", path, {"max_results": 1}, Origin=origin)
        assert (reply.status, reply.lets_pages_read) == (403, False), origin
        assert not send(url, "GET", "/", Origin=origin).lets_pages_read
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{port}"
        assert send(url, "POST", path, {"max_results": 1}, Host=host, Origin=f"http://{host}").status == 200


def test_the_settings_of_a_server_of_ones_own_name_its_host() -> None:
    lines = (Path(__file__).parents[3] / "mlflow" / "server.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert given.keys() <= vars(mlflow.environment_variables).keys()
    hosts, origins = (given[f"MLFLOW_SERVER_{what}"].split(",") for what in ("ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS"))
    assert is_allowed_host_header(hosts, "mlflow.example.org")
    assert not should_block_cors_request("https://mlflow.example.org", "POST", origins)
    for host in ("192.168.1.1.evil.example", "mlflow.example.org.evil.example", "10.0.0.1"):
        assert not is_allowed_host_header(hosts, host)
        assert should_block_cors_request(f"https://{host}", "POST", origins)


def test_user_mistakes(tmp_path: Path, served: Served) -> None:
    with pytest.raises(FoundryError, match="No runs recorded"), running_dashboards(tmp_path / "empty"):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with (
            pytest.raises(FoundryError, match=f"Port {port} is taken"),
            running_dashboards(served.facts.workspace, mlflow_port=port),
        ):
            pass
