"""`gme doctor`: what a run would fail at on this machine, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gme_cli.options import DEFAULT_CONFIG, PipelineInWorkspace, ReportOptions, print_json, say
from gme_data.errors import FoundryError, explain_os_error

_REPORT = ReportOptions()
_MIN_DISK = 2 * 2**30
"""The default run leaves 1.0 GiB and holds 0.5 GiB of checkpoints meanwhile."""
_ENVIRONMENT_DISK = "3.6 GiB"
"""What `make setup` installs."""
_MIN_MEMORY = 8 * 2**30
_MARKS = {"ok": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: a ``note`` is for information, ``bad`` will make the pipeline fail."""

    what: str
    state: Literal["ok", "note", "bad"]
    text: str
    hint: str = ""


def doctor(*, common: ReportOptions = _REPORT) -> int:
    """Check Python, packages, disk, memory, workspace, tools, and where the pipeline of --config will keep its records.

    Exits with 1 if something will fail.
    """
    results = [*(check(common.workspace) for check in _CHECKS), *_check_records(common)]
    if common.json:
        print_json([asdict(result) for result in results])
    else:
        for result in results:
            say(f"{_MARKS[result.state]} {result.what:<10} {result.text}")
            if result.hint:
                say(f"{'':13}→ {result.hint}")
    return 1 if any(result.state == "bad" for result in results) else 0


def require_workspace(workspace: Path) -> None:
    """Checks that a workspace can hold a run.

    Raises:
        FoundryError: The workspace can't be written, or its disk is nearly full.
    """
    for result in (_check_writable(workspace), _check_disk(workspace)):
        if result.state == "bad":
            raise FoundryError(result.text, hint=result.hint, exit_code=1)


def _check_python(_: Path) -> CheckResult:
    # Nothing to compare: the package requires 3.11, so an installer has refused anything older.
    return CheckResult("python", "ok", platform.python_version())


def _check_packages(_: Path) -> CheckResult:
    path = Path(__file__).resolve().parents[2] / "requirements.txt"  # of a checkout; a wheel has none
    pins = [line for line in path.read_text().splitlines() if "==" in line] if path.exists() else []
    if not pins:
        return CheckResult("packages", "note", "not compared: there is no requirements.txt, this is no checkout")
    problems = [problem for line in pins if (problem := _pin_problem(line))]
    if not problems:
        return CheckResult("packages", "ok", "every pinned version is installed")
    text = ", ".join(problems[:5]) + (f" and {len(problems) - 5} more" if len(problems) > 5 else "")
    state: Literal["note", "bad"] = "bad" if any("missing" in problem for problem in problems) else "note"
    return CheckResult("packages", state, text, "make setup")


def _pin_problem(pin: str) -> str | None:
    name, _, pinned = pin.partition(";")[0].strip().partition("==")
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    # The local part of a version, such as +cpu, names the build; pins leave it open.
    return None if installed.partition("+")[0] == pinned else f"{name} is {installed}, pinned {pinned}"


def _check_disk(workspace: Path) -> CheckResult:
    free = shutil.disk_usage(_existing(workspace)).free  # the workspace itself may not exist yet
    text = f"{free / 2**30:.1f} GiB free"
    if free < _MIN_DISK:
        needed = f"a run needs up to {_MIN_DISK / 2**30:.0f} GiB beside the environment's {_ENVIRONMENT_DISK}"
        return CheckResult("disk", "bad", f"{text} in {workspace}; {needed}", "Free some space.")
    return CheckResult("disk", "ok", text)


def _check_memory(_: Path) -> CheckResult:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state: Literal["ok", "note"] = "ok" if total >= _MIN_MEMORY else "note"
    return CheckResult("memory", state, f"{total / 2**30:.0f} GiB, {os.cpu_count()} cores")


def _check_writable(workspace: Path) -> CheckResult:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workspace):
            return CheckResult("workspace", "ok", f"{workspace.resolve()} can be written")
    except OSError as error:
        explained = explain_os_error(error)
        hint = explained.hint if explained and explained.hint else "Give another folder with --workspace."
        return CheckResult("workspace", "bad", f"{workspace} can't be written: {error.strerror}", hint)


def _check_accelerator(_: Path) -> CheckResult:
    import torch  # takes seconds, so not at the top: `gme pipeline` uses other checks of this module

    from gme_training.config import TrainingConfig
    from gme_training.devices import choose_device, count_gpus

    if gpus := count_gpus():
        text = f"{gpus} x {torch.cuda.get_device_name(0)}"
        ranks = int(TrainingConfig.model_fields["ranks"].default)
        if choose_device(ranks, gpus) == "cpu":
            hint = f"Stages of {ranks} ranks, the default, run on the CPU; with ranks: {gpus} they use the GPU."
            return CheckResult("gpu", "note", text, hint)
        return CheckResult("gpu", "ok", text)
    return CheckResult("gpu", "note", "none; the miniature runs on the processor, GME-2B and 7B need GPUs")


def _check_tools(_: Path) -> CheckResult:
    missing = [tool for tool in ("git", "make") if shutil.which(tool) is None]
    if missing:
        return CheckResult(
            "tools", "note", f"not found: {', '.join(missing)}", "Install them with your package manager."
        )
    return CheckResult("tools", "ok", "git, make")


def _check_records(options: PipelineInWorkspace) -> list[CheckResult]:
    """Returns the checks of `flows.preflight`, after which `gme pipeline` would refuse to start."""
    if options.config == DEFAULT_CONFIG and not options.config.exists():
        return [CheckResult("records", "note", f"not looked at: there is no {options.config} here", "Give --config.")]
    try:
        from flows.preflight import check_ready

        checked = list(check_ready(options.pipeline(), options.workspace.resolve()))
    except (FoundryError, ModuleNotFoundError) as error:  # the results of the other checks are printed all the same
        return [CheckResult("records", "bad", str(error), getattr(error, "hint", None) or "")]
    return [
        CheckResult(
            ready.what, "bad" if ready.error else "ok", ready.text, (ready.error.hint or "") if ready.error else ""
        )
        for ready in checked
    ]


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


_CHECKS: tuple[Callable[[Path], CheckResult], ...] = (
    _check_python,
    _check_packages,
    _check_disk,
    _check_memory,
    _check_writable,
    _check_accelerator,
    _check_tools,
)
