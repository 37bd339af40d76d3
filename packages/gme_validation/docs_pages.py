"""Makes Data Docs reproducible, so that equal data give equal bytes and the step an equal content digest.

Great Expectations writes the time of rendering into each page and gives its blocks random ids. The time of a validation
is recorded in the manifest of its step.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

FIXED_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The run time that is passed to Great Expectations for every run."""
_STAMP = r"\d{8}T\d{6}\.\d{6}Z"
_RENDERED = re.compile(rf"\?d={_STAMP}")
_LOADED = re.compile(rf"(ge_load_time</span>(?:\s|<[^<>]*>)*){_STAMP}")
_BLOCK = re.compile(r"(collapse-body-)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def make_reproducible(docs: Path) -> None:
    """Numbers the blocks of each page in order, and removes the times of rendering and of loading the table."""
    for path in docs.rglob("*.html"):
        text = _LOADED.sub(r"\1", _RENDERED.sub("", path.read_text(encoding="utf-8")))
        path.write_text(_number_blocks(text), encoding="utf-8")


def _number_blocks(text: str) -> str:
    numbers: dict[str, int] = {}
    # An id occurs at its block and at the button that folds it, so equal ids must stay equal.
    return _BLOCK.sub(lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers))}", text)
