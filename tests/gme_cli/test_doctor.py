"""What `gme doctor` says of machines that this one is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from gme_cli.doctor import _check_accelerator, _check_disk, require_workspace
from gme_data.errors import FoundryError


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("count", "state", "hint"),
    [
        (0, "note", ""),
        (1, "note", "Stages of 2 ranks, the default, run on the CPU; with ranks: 1 they use the GPU."),
        (2, "ok", ""),
        (8, "ok", ""),
    ],
)
def test_gpus_that_the_default_stages_leave_alone_are_noted(
    count: int, state: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H200")
    finding = _check_accelerator(tmp_path)
    assert (finding.state, finding.hint) == (state, hint)
    assert not count or finding.text == f"{count} x H200"


def test_a_disk_that_is_nearly_full_is_told_with_what_a_run_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * 2**30, 9 * 2**30, 2**30))
    finding = _check_disk(tmp_path)
    assert finding.state == "bad"
    assert "1.0 GiB free" in finding.text
    assert "a run needs up to 2 GiB beside the environment's 3.6 GiB" in finding.text
    with pytest.raises(FoundryError, match="up to 2 GiB"):
        require_workspace(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * 2**30, 7 * 2**30, 3 * 2**30))
    assert _check_disk(tmp_path).state == "ok"
