"""What goes wrong on a user's machine ends in a clear line and an exit code, and nothing finished is lost."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.small import GME, HERE, Small


@pytest.mark.hardening("faults", "F17", "Ctrl-C, SIGTERM to the pipeline")
def test_ctrl_c_says_so_and_the_rerun_goes_on(tmp_path: Path) -> None:
    small = Small(tmp_path)
    process = subprocess.Popen(
        small.command("atlas", "build"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell is deaf to Ctrl-C, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    while not list(tmp_path.glob("data/.staging/*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "data" / "atlas").exists()
    assert small.json("atlas", "build")["counts"]["places"] == 24


@pytest.mark.xdist_group("pipeline")
@pytest.mark.hardening("faults", "F17", "Ctrl-C, SIGTERM to the pipeline")
def test_sigterm_ends_the_pipeline_and_all_it_started_within_seconds(
    finished: tuple[Small, dict[str, Any]], tmp_path: Path
) -> None:
    small = finished[0].copy(tmp_path / "workspace", "data", "runs/prefect")
    process = subprocess.Popen(small.command("pipeline"), stderr=subprocess.PIPE, text=True)
    # Two steps at once, one of them waited for in another thread.
    while len(list(small.workspace.glob("*/.staging/*"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(family, timeout=15)[1]


def run_on_a_disk_of(size: str, workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run gme on a small file system, in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a process make its own mount namespace")
    command = shlex.join(Small(workspace).command(*arguments))
    script = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(workspace))} && exec {command}"
    return subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.hardening("faults", "F18", "full disk in building data, before a pipeline")
def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    done = run_on_a_disk_of("1m", tmp_path, "atlas", "build")
    assert done.returncode == 1, done.stderr
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.hardening("faults", "F18", "full disk in building data, before a pipeline")
def test_a_nearly_full_disk_is_refused_before_the_pipeline_starts(tmp_path: Path) -> None:
    done = run_on_a_disk_of("64m", tmp_path, "pipeline")
    assert done.returncode == 1, done.stderr
    assert "GiB free" in done.stderr
    assert "Free some space" in done.stderr


def test_two_pipelines_in_one_workspace_are_refused(tmp_path: Path) -> None:
    import fcntl

    shutil.copy(HERE / "promotion.yaml", tmp_path)
    (tmp_path / "runs").mkdir()
    with (tmp_path / "runs" / "pipeline.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = Small(tmp_path).run("pipeline")
    assert done.returncode == 2
    assert "Another pipeline is running in this workspace" in done.stderr


def test_orphaned_prefect_servers_of_this_workspace_are_ended(tmp_path: Path) -> None:
    """A stand-in for the server, known by its command line and PREFECT_HOME, whose parent has died.

    On Linux the kernel ends it; elsewhere the next run does.
    """
    from flows.server import end_orphaned_servers

    code = "import time; time.sleep(120)"
    pid_file = tmp_path / "pid"
    starter = (
        "import os, subprocess, sys, pathlib;"
        f"p = subprocess.Popen([sys.executable, '-c', {code!r}, 'gme_data.programs', str(os.getpid()), 'prefect']);"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(p.pid))"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    subprocess.run([str(GME.parent / "python"), "-c", starter], env=environment, check=True)
    assert end_orphaned_servers(tmp_path / "another") == 0
    assert end_orphaned_servers(tmp_path) == 1
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(pid_file.read_text()), 0)
            time.sleep(0.05)
