"""Runs terraform on a copy, with the AWS provider of a mirror or of the registry. Knows no module of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

QUIET = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
PROVIDER = "registry.terraform.io/hashicorp/aws"


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command; the caller judges the status."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    return subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env={**environment, **QUIET},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def passes(folder: Path, *arguments: str) -> str:
    """Run one command that has to succeed; returns what it printed."""
    done = terraform(folder, *arguments)
    assert done.returncode == 0, f"terraform {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def need_terraform() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")


def initialise(folder: Path, *options: str) -> None:
    """`terraform init`, or a skip if the provider is neither here nor to be had."""
    need_terraform()
    for mirror in [*_mirrors(), None]:
        chosen = [f"-plugin-dir={mirror}"] if mirror else []
        done = terraform(folder, "init", "-no-color", *options, *chosen)
        if done.returncode == 0:
            return
    if "provider" in done.stderr:
        pytest.skip("no AWS provider: no mirror on this machine (TF_PLUGIN_MIRROR) and the registry is out of reach")
    raise AssertionError(done.stderr)


def _mirrors() -> list[Path]:
    """Folders that may hold providers, as administrators lay them out."""
    named = [Path(os.environ["TF_PLUGIN_MIRROR"])] if "TF_PLUGIN_MIRROR" in os.environ else []
    usual = [Path("/usr/share/terraform/plugins"), Path("/usr/local/share/terraform/plugins"), *Path("/opt").glob("*")]
    return [folder for folder in [*named, *usual] if (folder / PROVIDER).is_dir()]
