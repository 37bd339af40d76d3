"""What GitHub and pre-commit read is valid, pinned and modest in rights; the comment on metrics says what changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTION = GITHUB / "actions" / "setup" / "action.yml"
SCRIPT = GITHUB / "scripts" / "metrics_comment.py"
PRE_COMMIT = ROOT / ".pre-commit-config.yaml"
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-actions": [ACTION],
    "vendor.github-issue-forms": [GITHUB / "ISSUE_TEMPLATE" / "bug.yml", GITHUB / "ISSUE_TEMPLATE" / "feature.yml"],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
}
MAY_WRITE = {("metrics.yml", "pull-requests"), ("release.yml", "contents"), ("release.yml", "id-token")} | {
    ("release.yml", "attestations")
}


def load(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def check(schema: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_valid(schema: str) -> None:
    assert SCHEMAS[schema]
    done = check(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_finds_a_typing_error(tmp_path: Path) -> None:
    text = WORKFLOWS[0].read_text().replace("runs-on:", "run-on:")
    (tmp_path / "bad.yml").write_text(text)
    assert check("vendor.github-workflows", tmp_path / "bad.yml").returncode != 0


def test_there_are_the_workflows_we_speak_of() -> None:
    assert [path.name for path in WORKFLOWS] == ["lint.yml", "metrics.yml", "release.yml", "test.yml"]
    assert not list(ROOT.rglob("CODEOWNERS"))


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)( # v[\d.]+)?$", path.read_text(), re.MULTILINE)
    assert used
    foreign = [(name, version) for name, version in used if not name.startswith("./")]
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) and version for name, version in foreign), foreign
    assert all((ROOT / name).exists() for name, _ in used if name.startswith("./"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_as_small_as_they_can_be(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    granted = {
        (path.name, right)
        for job in workflow["jobs"].values()
        for right, level in job.get("permissions", {}).items()
        if level != "read"
    }
    assert granted == {entry for entry in MAY_WRITE if entry[0] == path.name}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_runs_replace_each_other_and_end(path: Path) -> None:
    workflow = load(path)
    assert "github." in workflow["concurrency"]["group"]
    own = [job for job in workflow["jobs"].values() if "uses" not in job]
    assert all(0 < job["timeout-minutes"] <= 120 for job in own)
    steps = [step for job in own for step in job["steps"]]
    kept = [step["with"]["persist-credentials"] for step in steps if "checkout@" in step.get("uses", "")]
    assert set(kept) <= {False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_take_no_text_from_strangers(path: Path) -> None:
    """Whatever a pull request may word itself reaches a shell as a variable only."""
    for job in load(path)["jobs"].values():
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", ""), step


def test_the_environment_is_cached_by_what_is_pinned() -> None:
    steps = load(ACTION)["runs"]["steps"]
    cache = next(step for step in steps if "cache@" in step.get("uses", ""))
    assert "hashFiles('requirements.txt')" in cache["with"]["key"]


def test_called_targets_exist() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    called = {name for path in [*WORKFLOWS, ACTION] for name in re.findall(r"\bmake ([a-z-]+)", path.read_text())}
    assert {"setup", "check", "check-infra", "test", "docs"} <= called
    assert [name for name in called if f"\n{name} " not in f"\n{shown}"] == []


def test_hooks_are_the_tools_of_the_environment() -> None:
    config = load(PRE_COMMIT)
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    tools = Path(sys.executable).parent
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert set(hooks) == {"ruff", "ruff-format", "mypy", "imports", "workflows", "terraform"}
    for hook in hooks.values():
        assert {"id", "name", "entry", "language"} <= set(hook)
        tool = hook["entry"].split()[0]
        assert tool == "terraform" or (tool.startswith(".venv/bin/") and (tools / Path(tool).name).exists())
        assert re.compile(hook.get("files", ""))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits with reports of different scores, under the project's own `dvc.yaml`."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "dvc.yaml", folder)
    run(folder, "git", "init", "--quiet")
    run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    for score in (0.5, 0.6):
        metrics = folder / "metrics"
        metrics.mkdir(exist_ok=True)
        (metrics / "scores.json").write_text(json.dumps({"overall": score, "same": 1.0}))
        steps = [f"{step},{score * 10 / (step + 1)}" for step in range(100)]
        (metrics / "curves.csv").write_text("\n".join(["step,loss", *steps]))
        (metrics / "tasks.csv").write_text(f"task,model\nflags,{score}\n")
        (metrics / "funnel.csv").write_text("step,kept\nquestion,10\n")
        run(folder, "git", "add", "--all")
        run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", str(score))
    return folder


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_comment_shows_what_changed(repository: Path) -> None:
    text = run(repository, sys.executable, str(SCRIPT), "HEAD~1", "--page", "page")
    row = next(line for line in text.splitlines() if "overall" in line)
    assert [cell.strip() for cell in row.split("|")][3:6] == ["0.5", "0.6", "0.1"]
    assert "same" not in text
    chart = re.search(r"```mermaid\nxychart-beta\n(.*?)```", text, re.DOTALL)
    assert chart is not None
    lines = [json.loads(line) for line in re.findall(r"line (\[.*\])", chart[1])]
    assert [len(line) for line in lines] == [34, 34]
    assert lines[1][0] == pytest.approx(lines[0][0] * 1.2, rel=1e-3)
    assert "base then this pull request" in chart[1]
    assert (repository / "page" / "index.html").is_file()


def test_the_comment_of_a_change_without_scores(repository: Path) -> None:
    text = run(repository, sys.executable, str(SCRIPT), "HEAD")
    assert "No metric differs." in text
    assert "mermaid" not in text


def test_an_unknown_base_is_an_error(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "nowhere"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "nowhere" in done.stderr
