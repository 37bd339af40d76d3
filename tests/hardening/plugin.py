"""What `make hardening` adds to pytest: rows of one part alone run, each is recorded, and none that passed runs again.

A row is a test that is marked ``hardening(part, row, title)``; what it measured it says through `record_property`.
Results are lines of ``runs/hardening/results.jsonl``; `hardening.report` makes docs/hardening.md of them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fuzz.harness import tried

from gme_data.events import append_event, read_events

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "runs" / "hardening" / "results.jsonl"
PARTS = ("faults", "attacks", "fuzz", "kills", "load")
MARK = "hardening"


@dataclass(frozen=True)
class Row:
    """A row of the tables: the part it belongs to, its name and what it does."""

    part: str
    name: str
    title: str


def row_of(item: pytest.Item) -> Row | None:
    """The row that a test proves; None for a test that is none."""
    mark = item.get_closest_marker(MARK)
    return Row(*mark.args) if mark else None


def seed() -> int:
    """What all random choices of a run come from: ``HARDENING_SEED``, 0 if it is not set."""
    return int(os.environ.get("HARDENING_SEED", "0"))


def whole() -> bool:
    """Whether the whole is run and not a sample: ``ALL=1``."""
    return os.environ.get("ALL", "") not in ("", "0")


def source_digest() -> str:
    """Digest of everything that could change a result."""
    digest = hashlib.sha256()
    for folder in ("packages", "flows", "tests", "configs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".yaml"} and path.is_file():
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=PARTS, required=True, help="the part of `make hardening` to run")
    parser.addoption("--results", type=Path, default=RESULTS, help="where results are added")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Rows may be slow: the default selection leaves those out.
    config.option.markexpr = MARK
    config.stash[_RUN] = {"code": source_digest(), "seed": seed(), "all": whole()}


_RUN: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part, run = config.getoption("--part"), config.stash[_RUN]
    passed = {
        event["test"]
        for event in read_events(config.getoption("--results"), "row")
        if event["outcome"] == "passed"
        and (event["code"], event["seed"]) == (run["code"], run["seed"])
        and event["all"] >= run["all"]  # the whole of a row covers its sample
    }
    chosen = [item for item in items if (row := row_of(item)) and row.part == part]
    left = [item for item in chosen if item.nodeid not in passed]
    config.hook.pytest_deselected(items=[item for item in items if item not in left])
    items[:] = left
    if len(left) < len(chosen):
        passed_before = len(chosen) - len(left)
        if reporter := config.pluginmanager.get_plugin("terminalreporter"):  # which a worker of xdist has not
            reporter.write_line(f"{passed_before} rows of '{part}' passed before and are not run again.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield
    row = row_of(item)
    if call.when == "call" and (inputs := tried.pop(item.nodeid, 0)):
        item.user_properties.append(("inputs", inputs))
    if row is not None and (call.when == "call" or report.outcome != "passed"):
        append_event(
            item.config.getoption("--results"),
            "row",
            part=row.part,
            row=row.name,
            title=row.title,
            test=item.nodeid,
            outcome=report.outcome,
            seconds=round(report.duration, 1),
            measured=dict(item.user_properties),
            reason=str(report.longrepr)[-500:] if report.outcome != "passed" else "",
            date=time.strftime("%Y-%m-%d"),
            **item.config.stash[_RUN],
        )
    return report
