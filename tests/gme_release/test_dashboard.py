from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dashboard import running_dashboards
from gme_release.records import RunFacts
from gme_release.registration import register


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own address
        assert answer.status == 200
        body: bytes = answer.read()
        return body


def test_both_servers_show_what_was_recorded_and_stop(facts: RunFacts, config: ReleaseConfig) -> None:
    found = register(facts.workspace, config, facts)
    home = {"PREFECT_HOME": str(facts.workspace / "runs" / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with running_dashboards(facts.workspace, home) as urls:
        assert b"<html" in get(urls.mlflow)
        assert b"<html" in get(urls.prefect)
        # The page must ask the API of this very server, not one at Prefect's default port.
        assert json.loads(get(f"{urls.prefect}/ui-settings"))["api_url"] == f"{urls.prefect}/api"
        run = json.loads(get(f"{urls.mlflow}/ajax-api/2.0/mlflow/runs/get?run_id={found.run_id}"))
        assert run["run"]["info"]["status"] == "FINISHED"
        page = get(f"{urls.mlflow}/get-artifact?run_id={found.run_id}&path=report/report.html")
        assert page == b"<h1>Report</h1>"
    for url in (urls.mlflow, urls.prefect):
        with pytest.raises(urllib.error.URLError):
            get(url)


def test_user_mistakes(tmp_path: Path, facts: RunFacts) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(FoundryError, match="No runs recorded"), running_dashboards(empty, {}):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with (
            pytest.raises(FoundryError, match=f"Port {port} is taken"),
            running_dashboards(facts.workspace, {}, mlflow_port=port),
        ):
            pass
