"""Runs that are killed, shared, and of any model; tasks on disk by the very same way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import letters_run
import numpy as np
import pytest
from filelock import FileLock, Timeout
from letters_run import TASKS, score
from upstream import NAMES, write_task

from gme_cli.main import run as gme
from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from umrb.data.loading import load_suite_task
from umrb.data.mteb_data import as_benchmark
from umrb.data.task_folders import disk_datasets
from umrb.registry import load_suite
from umrb.scoring.result_files import TaskRecord
from umrb.scoring.sharing import shared_run
from umrb.suite import SuiteConfig, run_suite
from umrb.systems.models import ModelOptions, open_model, score_mteb_model, variant_of
from umrb.systems.mteb_model import MtebEmbedder


def comparable(records: Sequence[TaskRecord]) -> list[Any]:
    return [record.score.model_dump() for record in records]


@pytest.mark.hardening("faults", "F13", "kill -9 of one of several that share a benchmark run")
def test_processes_share_a_run_and_a_killed_one_costs_nothing(tmp_path: Path) -> None:
    for name in TASKS:
        write_task(tmp_path / "data", name)
    log, output = tmp_path / "log", tmp_path / "shared"
    command = [sys.executable, letters_run.__file__, tmp_path / "data", output, log]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    deadline = time.monotonic() + 90
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    workers[0].kill()
    assert [worker.wait(120) for worker in workers] == [-signal.SIGKILL, 0]
    repeated = score(tmp_path / "data", output, log)
    assert comparable(repeated) == comparable(score(tmp_path / "data", tmp_path / "alone"))
    assert [record.encoded for record in repeated] == [2 * len(NAMES)] + [len(NAMES)] * (len(TASKS) - 1)
    encoded = log.read_text().splitlines()
    assert len(set(encoded)) == len(NAMES) * (1 + len(TASKS))  # one corpus, and questions under six instructions
    assert len(encoded) <= len(set(encoded)) + 4  # the chunk of the one that died


@pytest.mark.slow
def test_ranks_of_torchrun_share_a_run(tmp_path: Path) -> None:
    names = TASKS[:3]
    for name in names:
        write_task(tmp_path / "data", name)
    log, output = tmp_path / "log", tmp_path / "shared"
    before = comparable(score(tmp_path / "data", output, names=names))
    shutil.rmtree(output / "vectors")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, letters_run.__file__, str(tmp_path / "data"), str(output), str(log), *names]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    records = score(tmp_path / "data", output, names=names)
    assert comparable(records) == before
    ranks, encoded = zip(*(line.split("\t") for line in log.read_text().splitlines()), strict=True)
    assert set(ranks) == {"0", "1"}
    assert len(encoded) == len(set(encoded)) == len(NAMES) * (1 + len(names))
    # All was scored again, by one of the two each; what was encoded for a task is told whoever encoded it.
    scored = [name for rank in "01" for name in log.with_suffix(f".{rank}").read_text().split()]
    assert sorted(scored) == sorted(names)
    assert [record.encoded for record in records] == [2 * len(NAMES), len(NAMES), len(NAMES)]


def test_scoring_again_is_once_for_all_that_share_a_run(tmp_path: Path) -> None:
    """Another process is at work in the folder as long as `shared_run` holds."""
    write_task(tmp_path / "data", "SciFact")

    def scored(overwrite: str) -> tuple[str, ...]:
        return letters_run.run(tmp_path / "data", tmp_path / "out", None, ("SciFact",), overwrite).scored

    assert scored("never") == ("SciFact",)
    (folder,) = (tmp_path / "out" / "umrb" / "results").glob("*/*")
    with shared_run(folder) as began:
        os.utime(folder / "SciFact.json", (began, began))  # of the run before, by too little for a file system to tell
        assert scored("always") == ("SciFact",)
        assert scored("always") == ()  # a process that comes later finds what the first one scored
        assert scored("never") == ()
    assert scored("always") == ("SciFact",)
    with pytest.raises(FoundryError, match="Results are there: SciFact"):
        scored("never")


def test_who_comes_joins_those_at_work_and_else_begins(tmp_path: Path) -> None:
    with shared_run(tmp_path) as first:
        with shared_run(tmp_path) as second, shared_run(tmp_path) as third:
            assert first == second == third
        with shared_run(tmp_path) as fourth:
            assert first == fourth
    time.sleep(0.02)  # file systems tell times apart that are a tick of the kernel apart
    with shared_run(tmp_path) as later:
        assert later > first


def test_the_task_of_a_process_that_died_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever meets a task that another process is at comes back for it, and only then is done."""
    write_task(tmp_path / "data", TASKS[0])
    attempt, tried = FileLock.acquire, []

    def taken_at_first(lock: FileLock, timeout: float | None = None, **options: Any) -> Any:
        if timeout == 0 and lock.lock_file.endswith(f".{TASKS[0]}.lock"):
            tried.append(lock.lock_file)
            if len(tried) == 1:
                raise Timeout(lock.lock_file)
        return attempt(lock, timeout, **options)

    monkeypatch.setattr(FileLock, "acquire", taken_at_first)
    records = score(tmp_path / "data", tmp_path / "out", names=TASKS[:1])
    assert [record.score.name for record in records] == [TASKS[0]]
    assert len(tried) == 2


def test_a_dataset_that_is_not_there_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "data", "NQ")
    write_task(tmp_path / "data", "SciFact")
    (folder / "corpus" / "corpus-00000-of-00001.parquet").unlink()
    opened = open_model("mteb:mteb/baseline-random-encoder", tmp_path / "vectors", ModelOptions())
    config = SuiteConfig(
        datasets=("NQ", "SciFact"), data=tmp_path / "data", output=tmp_path / "out", allow_defects=True
    )
    done = run_suite(config, opened.meta, opened.make)
    assert done.scored == ("SciFact",)
    assert "The data of NQ can't be read" in done.refused["NQ"][0]
    assert "gme umrb fetch --dataset NQ" in done.refused["NQ"][0]


def test_what_changes_a_score_is_filed_apart() -> None:
    assert variant_of(ModelOptions()) == {}
    assert variant_of(ModelOptions(store="float16", frames=4, inputs=(("min_image_tokens", 4),))) == {
        "store": "float16",
        "frames": 4,
        "min_image_tokens": 4,
    }


def test_any_model_of_mteb_can_be_scored(tmp_path: Path) -> None:
    write_task(tmp_path / "data", "VisualNewsT2IRetrieval")
    write_task(tmp_path / "data", "SciFact")
    opened = open_model("mteb:mteb/baseline-random-encoder", tmp_path / "vectors", ModelOptions())
    config = SuiteConfig(
        datasets=("SciFact", "VisualNewsT2IRetrieval"),
        data=tmp_path / "data",
        output=tmp_path / "out",
        allow_defects=True,
    )
    records = run_suite(config, opened.meta, opened.make).records
    assert [record.score.name for record in records] == ["SciFact", "VisualNewsT2IRetrieval"]
    assert {record.model for record in records} == {"mteb/baseline-random-encoder"}
    with pytest.raises(FoundryError, match="mteb can't load 'nobody/nothing'"):
        open_model("mteb:nobody/nothing", tmp_path / "vectors", ModelOptions())


def test_a_model_of_mteb_refuses_what_it_would_pass_over(tmp_path: Path) -> None:
    for options, flag in (
        (ModelOptions(dtype="bfloat16"), "--dtype"),
        (ModelOptions(frames=2), "--frames"),
        (ModelOptions(inputs=(("min_image_tokens", 4),)), "--min-image-tokens"),
    ):
        with pytest.raises(FoundryError, match=f"does not take {flag}"):
            open_model("mteb:mteb/baseline-random-encoder", tmp_path, options)
    with pytest.raises(FoundryError, match="does not take --name"):
        open_model("mteb:mteb/baseline-random-encoder", tmp_path, ModelOptions(), name="a/b")
    half = open_model("mteb:mteb/baseline-random-encoder", tmp_path, ModelOptions(store="float16")).meta
    assert half.experiment_kwargs == {"store": "float16"}  # filed apart


class Broken(MtebEmbedder):
    """A model that returns one vector too few."""

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        return super().encode(inputs, **options)[1:]


def test_a_model_that_returns_what_is_no_vector_loses_nothing(tmp_path: Path, tiny: Embedder) -> None:
    write_task(tmp_path / "data", "SciFact")
    config = SuiteConfig(datasets=("SciFact",), data=tmp_path / "data", output=tmp_path / "out", allow_defects=True)
    broken = score_mteb_model(Broken(tiny, name="team/broken", revision="1"), tmp_path / "vectors")
    with pytest.raises(FoundryError, match=r"asked for 8 vectors and returned an array of the shape \(7, 576\)"):
        run_suite(config, broken.meta, broken.make)
    working = score_mteb_model(MtebEmbedder(tiny, name="team/broken", revision="1"), tmp_path / "vectors")
    assert len(run_suite(config, working.meta, working.make).records) == 1


def test_tasks_on_disk_run_through_the_same_path(
    corpus: Path, tiny: Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.save(tmp_path / "model")
    folder = corpus / "tasks" / "test"
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    assert gme(["umrb", "run", "--tasks", str(folder), *flags]) == 0
    assert "9 tasks scored" in capsys.readouterr().out
    (results,) = (tmp_path / "out" / "test" / "results" / "local__model").iterdir()
    assert (results / "colour-t2vd.json").exists()
    assert "colour-it2it" in (results / "report" / "report.md").read_text()
    assert gme(["umrb", "run", "--tasks", str(folder), "-d", "colour-t2vdd", *flags]) == 2
    assert "Did you mean 'colour-t2vd'" in capsys.readouterr().err


def test_a_task_folder_with_a_missing_file(corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(corpus / "tasks" / "test" / "colour-t2t", tmp_path / "a" / "tasks" / "colour-t2t")
    shutil.copytree(corpus / "images", tmp_path / "images")
    (folder / "queries.parquet").unlink()
    (dataset,) = disk_datasets(tmp_path / "a" / "tasks")
    with pytest.raises(FoundryError, match=r"Missing table: .*queries\.parquet"):
        load_suite_task(dataset, "colour-t2t", tmp_path / "a" / "tasks")


def test_the_benchmark_as_mteb_takes_it() -> None:
    benchmark = as_benchmark()
    assert len(list(benchmark.tasks)) == 46 + 12
    assert len(list(as_benchmark("retrieval-page").tasks)) == sum(
        dataset.source == "mteb" for dataset in load_suite("retrieval-page")
    )
