"""Files of our own and of DVC and MLflow, damaged: read as what they should be, or refused with their name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fuzz.harness import try_damaged_file
from release_miniature import OUTPUTS, build_workspace, load_facts

from gme_data.errors import FoundryError
from gme_data.structured import read_json
from gme_release.config import ReleaseConfig
from gme_release.dvc.config import cache_folder, ensure_dvc_config, remote_url
from gme_release.dvc.metric_files import write_metric_files
from gme_release.dvc.object_store import find_damage, missing_objects, remove_damaged
from gme_release.dvc.pointers import read_tracked_folder, restore_pointers_on_error
from gme_release.gate.query_scores import read_scores, scores_of, write_scores
from gme_release.gate.verdict import Check, Verdict
from gme_release.names import check_tracked_folder
from gme_release.registry.provenance import with_used_config
from gme_release.run_facts import record_key
from gme_release.tracking.run_metrics import score_metrics, training_curves

CONFIG = ReleaseConfig()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("damaged")
    facts = build_workspace(home)
    ensure_dvc_config(home, CONFIG)
    out = {"md5": "a" * 32 + ".dir", "size": 12, "nfiles": 2, "hash": "md5", "path": "data"}
    (home / "data.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    write_scores(home / "kept", scores_of(facts))
    verdict = Verdict("a" * 64, "b" * 64, (Check("x", True, "y"),))
    (home / "verdict.json").write_text(json.dumps(verdict.to_json()))
    (home / "runs" / "locks").mkdir(parents=True, exist_ok=True)
    (home / "runs" / "locks" / "pointers-before.json").write_text(json.dumps({"other": "text", "more": None}))
    return home


def read_facts(home: Path) -> None:
    facts = load_facts(home)
    if set(facts.manifests) != set(OUTPUTS):
        return
    score_metrics(facts.scores)
    list(training_curves(facts))
    scores_of(facts)
    record_key(with_used_config(replace(facts, sections={"train-2": "stage_2"}))[0], {})


def keep_pointers(home: Path) -> None:
    journal = home / "runs" / "locks" / "pointers-before.json"
    damaged = journal.read_bytes() if journal.is_file() else None
    with restore_pointers_on_error(home, ()):
        pass
    assert not journal.exists()
    if damaged is not None:
        journal.write_bytes(damaged)


READERS: dict[str, Callable[[Path], object]] = {
    "data.dvc": lambda home: read_tracked_folder(home, "data"),
    ".dvc/config": lambda home: (cache_folder(home), remote_url(home, CONFIG)),
    "runs/report/scores.json": lambda home: (read_facts(home), write_metric_files(home, home / "runs" / "report")),
    "checkpoints/stage2/curves.json": read_facts,
    "checkpoints/stage2/_manifest.json": read_facts,
    "kept/measured.json": lambda home: read_scores(home / "kept", "version 1"),
    "verdict.json": lambda home: read_json(home / "verdict.json", Verdict),
    "runs/locks/pointers-before.json": keep_pointers,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.hardening("fuzz", "Z8", "files of its own: manifests, pointers, jobs, records")
def test_no_damage_ends_as_an_error_of_ours(workspace: Path, name: str) -> None:
    path, read = workspace / name, READERS[name]
    refused = try_damaged_file(path, lambda: read(workspace), share=1 / 12, tokens=(b"&a *a",))
    assert refused or name == "runs/locks/pointers-before.json"


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_the_place_of_a_file_is_named(workspace: Path, name: str) -> None:
    path, read = workspace / name, READERS[name]
    whole = path.read_bytes()
    try:
        path.unlink()
        os.mkfifo(path)
        try:
            read(workspace)
        except FoundryError as error:
            assert path.name in str(error)
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)


def test_a_pointer_names_nothing_outside_of_the_stores(workspace: Path) -> None:
    path = workspace / "more.dvc"
    for md5 in ("../../../etc/passwd", "a" * 31, "A" * 32 + ".dir", "a" * 32 + ".dir/x"):
        path.write_text(yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "size": 1, "nfiles": 1}]}))
        with pytest.raises(FoundryError, match=r"more\.dvc is no pointer of DVC 3: outs\.0\.md5"):
            read_tracked_folder(workspace, "more")
    path.unlink()
    with pytest.raises(ValueError, match="below the workspace"):
        check_tracked_folder("../outside")


def test_a_store_with_what_is_no_object(tmp_path: Path) -> None:
    home = tmp_path / "files" / "md5"

    def put(data: bytes, suffix: str = "") -> str:
        name = hashlib.md5(data, usedforsecurity=False).hexdigest() + suffix
        (home / name[:2]).mkdir(parents=True, exist_ok=True)
        (home / name[:2] / name[2:]).write_bytes(data)
        return name

    sound = put(np.random.default_rng(1).bytes(100))
    whole = put(json.dumps([{"md5": sound, "relpath": "x"}]).encode(), ".dir")
    torn = put(json.dumps([{"md5": "0" * 32, "relpath": "x"}]).encode(), ".dir")
    wrong = [put(data, ".dir") for data in (b"{}", b"[1]", b'[{"md5": "../x"}]', b"\xff", b"[" * 500)]
    (home / "aa").mkdir(exist_ok=True)
    os.mkfifo(home / "aa" / ("b" * 30))
    (home / "aa" / ("c" * 30)).mkdir()
    damage = {one.name: one.what for one in find_damage(tmp_path)}
    assert set(damage) == {torn, *wrong, "aa" + "b" * 30, "aa" + "c" * 30}
    assert damage[torn] == "lists 1 objects that are missing"
    assert {damage[name] for name in wrong} == {"is no listing of a folder"}
    assert missing_objects(tmp_path, whole) == []
    assert missing_objects(tmp_path, wrong[0]) == [wrong[0]]
    remove_damaged(tmp_path, find_damage(tmp_path))
    assert find_damage(tmp_path) == []
