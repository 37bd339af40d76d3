"""What a release of the small pipeline promises: a task scores the same, the run can be repeated."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.small import CONFIG, HERE, Small

from flows.chains import pipeline_chain
from flows.config import load_pipeline
from flows.release import reproduce, require_same_code, rescore
from gme_data.errors import FoundryError
from gme_data.manifest import read_manifest
from gme_release.release.create import Release, create_release
from gme_release.release.signing import make_key
from gme_release.release.verify import verify_release

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture(scope="session")
def released(finished: tuple[Small, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Release]:
    """A release of the finished run, and the workspace. The checkout that it names is a small one that is clean."""
    workspace = finished[0].workspace
    home = tmp_path_factory.mktemp("released")
    shutil.copy(HERE.parents[1] / "requirements.txt", home)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "."]):
        subprocess.run(["git", *command], cwd=home, check=True)
    key = tmp_path_factory.mktemp("keys") / "release.pem"
    make_key(key)
    config = load_pipeline(CONFIG)
    same_code = partial(require_same_code, pipeline_chain(config))
    return workspace, create_release(workspace, config.release, "v1", key, checkout=home, require_same_code=same_code)


def test_a_task_scores_the_same(released: tuple[Path, Release], tmp_path: Path) -> None:
    workspace, made = released
    record = verify_release(made.folder).record
    before = read_manifest(workspace / "runs" / "evaluation")
    compared = rescore(made.folder, record, "pictograph-i2i", workspace)
    assert compared.within
    assert read_manifest(workspace / "runs" / "evaluation") == before
    with pytest.raises(FoundryError, match="no task 'pictograph'"):
        rescore(made.folder, record, "pictograph", workspace)
    with pytest.raises(FoundryError, match="not the data of the release"):
        rescore(made.folder, record, "pictograph-i2i", tmp_path)
    lying = [task.model_copy(update={"value": task.value + 0.1}) for task in record.tasks]
    with pytest.raises(FoundryError, match="scores differ"):
        rescore(made.folder, record.model_copy(update={"tasks": tuple(lying)}), "pictograph-i2i", workspace)


def test_the_record_is_of_the_run(released: tuple[Path, Release]) -> None:
    record = verify_release(released[1].folder).record
    assert {dataset.step for dataset in record.datasets} == {"corpus", "synthesize", "mine"}
    assert all(dataset.licences for dataset in record.datasets)
    assert record.instructions["place-question-t2t"]
    assert set(record.source.steps) == set(pipeline_chain(load_pipeline(CONFIG)).names)
    assert record.seeds["stage_1.seed"] == 17
    assert released[1].git_tag == "small@v1.0.0"
    with sqlite3.connect(released[0] / "runs" / "prefect" / "prefect.db") as database:
        flow_runs = {str(UUID(one)) for (one,) in database.execute("SELECT id FROM flow_run")}
    assert record.runs["gme.prefect.flow_run_id"] in flow_runs
    assert "gme.prefect.flow_run_url" not in record.runs, "the run's own server has no page"


def test_other_code_is_refused(released: tuple[Path, Release]) -> None:
    steps, chain = released[1].record.source.steps, pipeline_chain(load_pipeline(CONFIG))
    require_same_code(chain, steps)
    with pytest.raises(FoundryError, match="other code than this checkout's: report"):
        require_same_code(chain, {**steps, "report": "0" * 64})


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_run_can_be_repeated(released: tuple[Path, Release], tmp_path: Path) -> None:
    record = verify_release(released[1].folder).record
    assert all(one.within for one in reproduce(record, tmp_path / "again"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(FoundryError, match="not empty"):
        reproduce(record, tmp_path / "full")
    judged = record.model_copy(update={"inputs": {"synthesize": {"judge": "0"}}})
    with pytest.raises(FoundryError, match="champion judged"):
        reproduce(judged, tmp_path / "other")
