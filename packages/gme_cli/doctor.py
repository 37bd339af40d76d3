"""`gme doctor`: what is wrong with this machine, and what to do about it."""

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

from gme_cli.options import DEFAULT_CONFIG, Common, print_json, say
from gme_data.errors import FoundryError, explain_os_error

_COMMON = Common()
# The default run leaves 1.0 GiB and holds 0.5 GiB of checkpoints meanwhile; `make setup` took its share before.
_NEEDED_DISK = 2 * 2**30
_ENVIRONMENT_DISK = "3.6 GiB"
_NEEDED_MEMORY = 8 * 2**30
_MARKS = {"ok": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A ``note`` is worth knowing, ``bad`` will make the pipeline fail."""

    what: str
    state: Literal["ok", "note", "bad"]
    text: str
    hint: str = ""


def doctor(*, common: Common = _COMMON) -> int:
    """Check Python, packages, disk, memory, workspace, tools, and where the pipeline of --config will keep its records.

    Exits with 1 if something will fail.
    """
    findings = [*(check(common.workspace) for check in _CHECKS), *_check_records(common)]
    if common.json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{_MARKS[finding.state]} {finding.what:<10} {finding.text}")
            if finding.hint:
                say(f"{'':13}→ {finding.hint}")
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def require_workspace(workspace: Path) -> None:
    """Refuse a workspace that can't hold a run.

    Raises:
        FoundryError: It can't be written, or its disk is nearly full.
    """
    for finding in (_check_writable(workspace), _check_disk(workspace)):
        if finding.state == "bad":
            raise FoundryError(finding.text, hint=finding.hint, exit_code=1)


def _check_python(_: Path) -> Finding:
    # The package declares 3.11 as its floor, so an installer has refused anything older before this runs.
    return Finding("python", "ok", platform.python_version())


def _check_packages(_: Path) -> Finding:
    pins = _pins()
    if not pins:
        return Finding("packages", "note", "not compared: there is no requirements.txt, this is no checkout")
    wrong = [problem for line in pins if (problem := _pin_problem(line))]
    if not wrong:
        return Finding("packages", "ok", "every pinned version is installed")
    shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    state: Literal["note", "bad"] = "bad" if any("missing" in problem for problem in wrong) else "note"
    return Finding("packages", state, shown, "make setup")


def _pins() -> list[str]:
    path = Path(__file__).resolve().parents[2] / "requirements.txt"
    return [line for line in path.read_text().splitlines() if "==" in line] if path.exists() else []


def _pin_problem(pin: str) -> str | None:
    name, _, wanted = pin.partition(";")[0].strip().partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing"
    return None if found.partition("+")[0] == wanted else f"{name} is {found}, pinned {wanted}"


def _check_disk(workspace: Path) -> Finding:
    free = shutil.disk_usage(_existing(workspace)).free
    text = f"{free / 2**30:.1f} GiB free"
    if free < _NEEDED_DISK:
        needed = f"a run needs up to {_NEEDED_DISK / 2**30:.0f} GiB beside the environment's {_ENVIRONMENT_DISK}"
        return Finding("disk", "bad", f"{text} in {workspace}; {needed}", "Free some space.")
    return Finding("disk", "ok", text)


def _check_memory(_: Path) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state: Literal["ok", "note"] = "ok" if total >= _NEEDED_MEMORY else "note"
    return Finding("memory", state, f"{total / 2**30:.0f} GiB, {os.cpu_count()} cores")


def _check_writable(workspace: Path) -> Finding:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workspace):
            return Finding("workspace", "ok", f"{workspace.resolve()} can be written")
    except OSError as error:
        explained = explain_os_error(error)
        hint = explained.hint if explained and explained.hint else "Give another folder with --workspace."
        return Finding("workspace", "bad", f"{workspace} can't be written: {error.strerror}", hint)


def _check_accelerator(_: Path) -> Finding:
    import torch

    from gme_training.config import TrainingConfig
    from gme_training.devices import choose_device, count_gpus

    if gpus := count_gpus():
        text = f"{gpus} x {torch.cuda.get_device_name(0)}"
        ranks = int(TrainingConfig.model_fields["ranks"].default)
        if choose_device(ranks, gpus) == "cpu":
            hint = f"Stages of {ranks} ranks, the default, run on the CPU; with ranks: {gpus} they use the GPU."
            return Finding("gpu", "note", text, hint)
        return Finding("gpu", "ok", text)
    return Finding("gpu", "note", "none; the miniature runs on the processor, GME-2B and 7B need GPUs")


def _check_tools(_: Path) -> Finding:
    missing = [tool for tool in ("git", "make") if shutil.which(tool) is None]
    if missing:
        return Finding("tools", "note", f"not found: {', '.join(missing)}", "Install them with your package manager.")
    return Finding("tools", "ok", "git, make")


def _check_records(common: Common) -> list[Finding]:
    """What `gme pipeline` would refuse to start with."""
    if common.config == DEFAULT_CONFIG and not common.config.exists():
        return [Finding("records", "note", f"not looked at: there is no {common.config} here", "Give --config.")]
    try:
        from flows.preflight import check_ready

        found = list(check_ready(common.pipeline(), common.workspace.resolve()))
    except (FoundryError, ModuleNotFoundError) as error:
        return [Finding("records", "bad", str(error), getattr(error, "hint", None) or "")]
    return [
        Finding(one.what, "bad" if one.error else "ok", one.text, (one.error.hint or "") if one.error else "")
        for one in found
    ]


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


_CHECKS: tuple[Callable[[Path], Finding], ...] = (
    _check_python,
    _check_packages,
    _check_disk,
    _check_memory,
    _check_writable,
    _check_accelerator,
    _check_tools,
)
