"""Load on a real server, beside the floor of a bare `encode`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hardening.plugin import ROOT, whole

SECONDS = 60 if whole() else 10
ANSWERS = re.compile(
    r"^(bare encode|\d+ clients?.*?)  .*p50 +([\d.]+).*p95 +([\d.]+).*p99 +([\d.]+) +([\d.]+) answers/s", re.M
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.hardening("load", "L1", "texts by 1, 8, 32 and 128 clients, ms at p50 / p95 / p99")
def test_texts_by_many_clients(record_property: Callable[[str, object], None]) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "bench_serve_latency.py", "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = ANSWERS.findall(done.stdout)
    assert len(rows) == 6, done.stdout
    for name, *percentiles, rate in rows:
        record_property(name.strip(), f"{' / '.join(percentiles)}, {rate} a second")
    added = re.search(r"adds ([\d.\-]+) ms", done.stdout)
    assert added
    record_property("the server adds to the median", f"{added[1]} ms")
