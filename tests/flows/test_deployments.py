"""``flows/prefect.yaml`` without a server: everything that it names exists, fits its form and means what it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "flows" / "prefect.yaml").read_text())["deployments"]


def flow_of(deployment: dict[str, Any]) -> Any:
    path, _, name = deployment["entrypoint"].partition(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_can_be_run_as_it_stands(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert "request" in flow.parameters.model_dump()["properties"]  # Prefect shows a form of it
    assert deployment["work_pool"]["name"] in {"cpu", "gpu"}
    assert deployment["tags"]
    for given in [deployment, *(one for one in deployment.get("schedules", []) if "parameters" in one)]:
        request = flow.validate_parameters(given["parameters"])["request"]
        for file in (getattr(request, "config", None), getattr(request, "study", None)):
            assert file is None or (ROOT / file).is_file()
    for one in deployment.get("schedules", []):
        Schedule(cron=one["cron"], time_zone=one["timezone"])


def test_the_run_knows_its_schedule() -> None:
    [weekly] = [deployment for deployment in DEPLOYMENTS if deployment["name"] == "weekly"]
    for one in weekly["schedules"]:
        assert one["parameters"]["request"]["schedule"] == {"cron": one["cron"], "time_zone": one["timezone"]}


def test_every_flow_is_deployed_once() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert sorted(names) == ["evaluate", "study", "sweep", "synthesize", "train-1", "train-2", "weekly"]
