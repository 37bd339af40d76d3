"""A step runs once per key, goes on after a kill, and is redone when anything it depends on changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gme_data import steps
from gme_data.digests import code_digest
from gme_data.errors import FoundryError
from gme_data.journal import Journal
from gme_data.manifest import NAME, damage, read_manifest, require
from gme_data.settings import Frozen
from gme_data.steps import STAGING, PlannedStep, Step, StepContext, execute, find_done


class Config(Frozen):
    units: int = 3
    sleep: float = 0.0


def _write_units(config: Config, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    journal = Journal(context.staging, "units")
    for number in range(config.units):
        journal.get_or_run(f"unit-{number}", lambda n=number: _work(context, n, config.sleep))
    (context.staging / "out.json").write_text(json.dumps(list(range(config.units))))
    return {"units": config.units}


def _work(context: StepContext, number: int, sleep: float) -> int:
    time.sleep(sleep)
    with (context.log_dir / "work.log").open("a") as log:
        log.write(f"{number}\n")
    return number


STEP = Step("write", _write_units, "out/units")


def worked(workspace: Path) -> list[int]:
    return [int(line) for line in (workspace / "runs/steps/write/work.log").read_text().split()]


def test_second_run_does_nothing(tmp_path: Path) -> None:
    first = execute(PlannedStep(STEP, Config(), {}), tmp_path)
    second = execute(PlannedStep(STEP, Config(), {}), tmp_path)
    assert not first.reused
    assert second.reused
    assert second.manifest == first.manifest
    assert worked(tmp_path) == [0, 1, 2]


def test_config_change_redoes(tmp_path: Path) -> None:
    execute(PlannedStep(STEP, Config(), {}), tmp_path)
    again = execute(PlannedStep(STEP, Config(units=4), {}), tmp_path)
    assert not again.reused
    assert json.loads((again.folder / "out.json").read_text()) == [0, 1, 2, 3]
    assert not list((tmp_path / "out" / STAGING).iterdir())


def test_damaged_output_is_redone(tmp_path: Path) -> None:
    first = execute(PlannedStep(STEP, Config(), {}), tmp_path)
    (first.folder / "out.json").write_text("[9, 9, 9]")
    assert damage(first.folder, first.manifest) == ["out.json: content changed"]
    with pytest.raises(FoundryError, match="Damaged input"):
        require(first.folder, "write")
    assert not execute(PlannedStep(STEP, Config(), {}), tmp_path).reused
    assert json.loads((first.folder / "out.json").read_text()) == [0, 1, 2]


def test_input_content_is_in_the_key(tmp_path: Path) -> None:
    one = execute(PlannedStep(STEP, Config(), {}), tmp_path / "a")
    other = execute(PlannedStep(STEP, Config(units=5), {}), tmp_path / "b")
    after = lambda outcome: PlannedStep(STEP, Config(), {"up": outcome})  # noqa: E731
    assert after(one).key != after(other).key
    assert find_done(after(one), tmp_path / "a") is None


def test_kill_then_rerun_redoes_only_what_was_lost(tmp_path: Path) -> None:
    config = Config(units=6, sleep=0.3)
    process = multiprocessing.get_context("fork").Process(
        target=execute, args=(PlannedStep(STEP, config, {}), tmp_path)
    )
    process.start()
    log = tmp_path / "runs/steps/write/work.log"
    while not (log.exists() and len(worked(tmp_path)) >= 3):
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not (tmp_path / STEP.output).exists()
    execute(PlannedStep(STEP, config, {}), tmp_path)
    done = worked(tmp_path)
    assert sorted(set(done)) == list(range(6))
    assert len(done) <= 7  # at most the unit in flight was done twice
    assert not list((tmp_path / STEP.output).rglob(".journal*"))


def test_publication_cut_short_is_finished_without_work(tmp_path: Path) -> None:
    first = execute(PlannedStep(STEP, Config(), {}), tmp_path)
    staged = tmp_path / "out" / STAGING / f"units-{first.manifest.key[:16]}"
    first.folder.rename(staged)
    again = execute(PlannedStep(STEP, Config(), {}), tmp_path)
    assert again.reused
    assert worked(tmp_path) == [0, 1, 2]
    assert read_manifest(tmp_path / STEP.output) == first.manifest


class Died(Exception):
    pass


@pytest.mark.hardening("faults", "F7", "death before each rename and deletion of a publication")
def test_a_death_at_any_rename_or_deletion_of_a_publication_loses_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends before the n-th change that a publication makes, for every n; the next run finishes it."""
    changes = ((os, "rename"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (steps.shutil, "rmtree"))

    def run_until_death(workspace: Path, config: Config, survived: int) -> bool:
        left = iter(range(survived))
        with monkeypatch.context() as patch:
            for module, name in changes:
                real = getattr(module, name)

                def change(*arguments: Any, real: Any = real, **options: Any) -> Any:
                    if next(left, None) is None:
                        raise Died
                    return real(*arguments, **options)

                patch.setattr(module, name, change)
            for name in ("rename", "replace", "unlink", "rmdir"):
                patch.setattr(Path, name, lambda self, *rest, name=name, **_: getattr(os, name)(self, *rest))
            try:
                execute(PlannedStep(STEP, config, {}), workspace)
            except Died:
                return False
        return True

    survived = 0
    while True:
        workspace = tmp_path / str(survived)
        execute(PlannedStep(STEP, Config(units=1), {}), workspace)
        ended = run_until_death(workspace, Config(units=2), survived)
        published = (workspace / STEP.output, *(workspace / "out" / STAGING).glob("*"))
        assert any((folder / "out.json").exists() for folder in published)
        again = execute(PlannedStep(STEP, Config(units=2), {}), workspace)
        assert json.loads((again.folder / "out.json").read_text()) == [0, 1]
        assert worked(workspace).count(1) == 1 or survived < 2, "a unit in the journal was done again"
        assert not list((workspace / "out" / STAGING).iterdir())
        assert not list(again.folder.rglob(".*"))
        if ended:
            break
        survived += 1
    assert survived >= 5


@pytest.mark.hardening("faults", "F8", "power cut: files, names and the rename are on disk in that order")
def test_files_their_names_and_the_rename_are_on_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        done.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        done.append(f"rename {target}")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    folder = execute(PlannedStep(STEP, Config(), {}), tmp_path).folder
    renamed = done.index(f"rename {folder}")
    before = [line for line in done[:renamed] if STAGING in line and ".journal" not in line]
    assert Path(before[0]).name == "out.json"
    assert any(NAME in Path(line).name for line in before)
    assert before[-1].endswith(f"units-{read_manifest(folder).key[:16]}")
    assert f"fsync {folder.parent}" in done[renamed:]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=execute, args=(PlannedStep(STEP, Config(units=4, sleep=0.5), {}), tmp_path)
    )
    process.start()
    while not list(tmp_path.rglob(".journal-units")):
        time.sleep(0.02)
    with pytest.raises(FoundryError, match="Another process is running the step 'write'"):
        execute(PlannedStep(STEP, Config(units=4, sleep=0.5), {}), tmp_path)
    process.join()


def test_missing_input_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="has not been made") as caught:
        require(tmp_path / "data/atlas", "atlas build")
    assert "gme atlas build" in str(caught.value.hint)


def test_torn_manifest_is_reported(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"step": "wri')
    with pytest.raises(FoundryError, match="Unreadable manifest"):
        read_manifest(tmp_path)


def test_code_digest_follows_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gme_data import digests

    before = code_digest(["gme_data.tasks"])
    assert before == code_digest(["gme_data.tasks"])
    real = digests._source_of
    # parquet is imported by tasks: an edit in it must show; progress is not, so an edit there must not.
    for module, expected in (("gme_data.parquet", True), ("gme_data.progress", False)):
        edited = lambda name, m=module: (real(name)[0] + b"\n#", real(name)[1]) if name == m else real(name)  # noqa: E731
        monkeypatch.setattr(digests, "_source_of", edited)
        assert (code_digest(["gme_data.tasks"]) != before) is expected


def test_code_digest_imports_nothing_that_it_digests() -> None:
    """Or every rerun would wait for torch before it could say that nothing is to be done."""
    asked = "from gme_data.digests import code_digest; code_digest(['gme_embedder.embedder', 'umrb.evaluation'])"
    told = "; import sys; print(sorted({'torch', 'umrb', 'gme_embedder'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked + told], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_code_digest_covers_the_data_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from gme_data import digests

    before = code_digest(["umrb.report.build"])
    files = digests._data_files("umrb.report")
    assert any(name.endswith(".css") for name, _ in files)
    assert not [name for name, _ in digests._data_files("umrb") if name.startswith("report/")]
    monkeypatch.setattr(digests, "_data_files", lambda name: [["x.css", "0"]] if name == "umrb.report" else [])
    assert code_digest(["umrb.report.build"]) != before
