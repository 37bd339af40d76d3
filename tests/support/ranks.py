"""Real processes that meet over gloo."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks_of(module: str, ranks: int, *arguments: str, seconds: float = 300, code: int = 0) -> None:
    """Run ``python -m module arguments`` once per rank, the tests importable; all must end with `code`."""
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"rank-{rank}.log" for rank in range(ranks)]
        starts = [
            {
                "module": module,
                "arguments": arguments,
                "environment": {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "log": str(log),
            }
            for rank, log in enumerate(logs)
        ]
        server = _server()
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps({"starts": starts, "seconds": seconds}) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        assert codes == [code] * ranks, "\n".join(log.read_text() for log in logs)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """What ranks are forked from: it ends when its standard input does, with the process of the tests."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "support.rank_server"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
