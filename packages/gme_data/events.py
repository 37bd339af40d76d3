"""``events.jsonl``: one JSON object a line, appended while work runs; torn lines are passed over by the reader."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gme_data.structured import BadLine, read_json_lines


def append_event(path: Path, kind: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON value
    """Appends ``{"time": ..., "kind": kind, **fields}``. `time` is seconds since the epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, ensure_ascii=False))


def append_line(path: Path, line: str) -> None:
    """Appends a line in one write, on a new line if the file ends in a torn one, left by a full disk or a kill."""
    with path.open("ab+") as handle:
        if handle.seek(0, os.SEEK_END):
            handle.seek(-1, os.SEEK_END)
            torn = handle.read(1) != b"\n"  # it would swallow the line that is appended to it
        else:
            torn = False
        handle.write((b"\n" if torn else b"") + line.encode() + b"\n")


def read_events(path: Path, kind: str | None = None, bad: list[BadLine] | None = None) -> Iterator[dict[str, Any]]:
    """Yields the events in order, all or of one kind; `bad` gets the lines that are none. A missing file has none."""
    for event in read_json_lines(path, dict[str, Any], bad):
        if kind is None or event.get("kind") == kind:
            yield event
