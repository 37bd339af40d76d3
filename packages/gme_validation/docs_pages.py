"""Data Docs whose bytes depend on the data alone: equal data, equal pages.

Great Expectations writes into each page when it was rendered, and names its blocks at random. When a validation ran is
in the manifest of its step.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Given as the time of every run."""
_STAMP = r"\d{8}T\d{6}\.\d{6}Z"
_RENDERED = re.compile(rf"\?d={_STAMP}")
_LOADED = re.compile(rf"(ge_load_time</span>(?:\s|<[^<>]*>)*){_STAMP}")
_BLOCK = re.compile(r"(collapse-body-)([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def settle_pages(docs: Path) -> None:
    """Number the blocks of each page in their order, and take out when it was rendered and its table was loaded."""
    for path in docs.rglob("*.html"):
        text = _LOADED.sub(r"\1", _RENDERED.sub("", path.read_text(encoding="utf-8")))
        path.write_text(_numbered(text), encoding="utf-8")


def _numbered(text: str) -> str:
    numbers: dict[str, int] = {}
    return _BLOCK.sub(lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers))}", text)
