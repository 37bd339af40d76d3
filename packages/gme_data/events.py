"""``events.jsonl``: one JSON object a line, appended while work runs; a torn last line is skipped by the reader."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def append_event(path: Path, kind: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON value
    """Append ``{"time": ..., "kind": kind, **fields}``. `time` is seconds since the epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, ensure_ascii=False) + "\n")


def read_events(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Events in order, all or of one kind. A missing file has none."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # a killed writer leaves at most its last line torn
        if kind is None or event.get("kind") == kind:
            yield event
