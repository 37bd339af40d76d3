"""docs/hardening.md from the results of `make hardening`: ``python -m hardening.report``, in tests/."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from hardening.plugin import PARTS, RESULTS, ROOT

from gme_data.events import read_events

PAGE = ROOT / "docs" / "hardening.md"
START = "<!-- results: written by `make hardening` -->"
HEADINGS = {
    "faults": "Faults",
    "attacks": "Attacks",
    "fuzz": "Mutated inputs",
    "kills": "Random kills",
    "load": "Load",
}


def latest(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last result of each test, in order of parts and rows."""
    by_test = {event["test"]: event for event in events}
    return sorted(by_test.values(), key=lambda event: (PARTS.index(event["part"]), _natural(event["row"])))


def _natural(name: str) -> tuple[int, str]:
    """A2 before A10."""
    number = re.search(r"\d+", name)
    return int(number[0]) if number else 0, name


def render(results: list[dict[str, Any]]) -> str:
    """The tables as Markdown, one a part; a row may have several tests."""
    tables = []
    for part, events in groupby(results, lambda event: event["part"]):
        of_part = list(events)
        columns = "| row | what is done | tests | outcome | seconds | measured |"
        lines = [f"### {HEADINGS[part]}", "", *_when(of_part), "", columns, "|---|---|--:|---|--:|---|"]
        for row, of_row in groupby(of_part, lambda event: event["row"]):
            lines.append(_line(row, list(of_row)))
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _when(events: list[dict[str, Any]]) -> Iterator[str]:
    """When a part ran, with what seed, and how many inputs it had."""
    runs = sorted({(event["date"], event["seed"], "whole" if event["all"] else "sample") for event in events})
    when = "; ".join(f"{date}, seed {seed}, {extent}" for date, seed, extent in runs)
    inputs = f" {_inputs(events):,} inputs." if _inputs(events) else ""
    yield f"{when[0].upper()}{when[1:]}.{inputs}"


def _line(row: str, events: list[dict[str, Any]]) -> str:
    outcomes = {event["outcome"] for event in events}
    outcome = "**fell**" if "failed" in outcomes else "holds" if "passed" in outcomes else "not run here"
    measured = {name.replace("_", " "): value for event in events for name, value in event["measured"].items()}
    if inputs := _inputs(events):
        measured["inputs"] = f"{inputs:,}"
    told = "; ".join(f"{name}: {value}" for name, value in measured.items()).replace("|", "/")
    seconds = sum(event["seconds"] for event in events)
    title = events[0]["title"].replace("|", "/")
    return f"| {row} | {title} | {len(events)} | {outcome} | {seconds:.1f} | {told} |"


def _inputs(events: list[dict[str, Any]]) -> int:
    """Mutated inputs that the tests of a row or a part had together."""
    return sum(event["measured"].get("inputs", 0) for event in events)


def main() -> int:
    """Write the tables below the mark in the page; 1 if a row fell."""
    results = latest(read_events(RESULTS, "row"))
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(START)] + f"{START}\n\n{render(results)}", encoding="utf-8")
    fell = [event["test"] for event in results if event["outcome"] == "failed"]
    lines = [f"{len(results)} rows, {len(fell)} fell; written to {PAGE.relative_to(ROOT)}", *fell]
    sys.stdout.write("\n  ".join(lines) + "\n")
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main())
