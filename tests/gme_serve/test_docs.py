"""What `docs/serve.md` shows works: its requests against the real server, its tables against the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import png

from gme_serve.config import Batching, RequestLimits

pytestmark = pytest.mark.xdist_group("serve")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
@pytest.mark.parametrize("number", range(4))
def test_its_curl_lines_work(servers, tmp_path, number):
    assert len(blocks("bash")) == 4
    (tmp_path / "flag.png").write_bytes(png(1))
    command = blocks("bash")[number].replace(ADDRESS, servers["open"].url)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert len(answer["data"]) == [2, 1, 1, 3][number], answer


def test_its_python_works(servers, embedder):
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(code.replace(ADDRESS, servers["open"].url), "docs/serve.md", "exec"), names)  # noqa: S102 - our own page
    assert names["vectors"].shape == (2, embedder.dimension)


def test_its_table_of_limits_is_complete():
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| ([\d.]+) \|", PAGE, re.MULTILINE))
    real = {**RequestLimits().model_dump(), **Batching().model_dump()}
    assert rows == {name.replace("_", "-"): str(value) for name, value in real.items()}


def test_its_metrics_are_those_served(client):
    named = set(re.findall(r"`(gme_[a-z_]+)`", PAGE))
    served = set(re.findall(r"^# TYPE (gme_\w+)", client.get("/metrics").text, re.MULTILINE))
    assert named == {name for name in served if not name.endswith("_created")}
