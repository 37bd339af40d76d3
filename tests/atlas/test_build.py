from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import atlas.album
from atlas.album import Album
from atlas.build import build
from atlas.config import AtlasConfig
from gme_data.digests import sha256_file
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES
from gme_data.parquet import read_rows
from gme_data.tasks import RetrievalTask, list_tasks, load_task

TASK_NAMES = {
    "place-question-t2t",
    "pictograph-i2i",
    "flag-i2i",
    "pictograph-name-t2i",
    "flag-description-t2i",
    "pictograph-names-multilingual-t2i",
    "pictograph-name-i2t",
    "flag-description-i2t",
    "page-question-seen-t2vd",
    "page-question-unseen-t2vd",
    "illustrated-question-t2it",
    "flag-question-seen-it2t",
    "flag-question-unseen-it2t",
    "pictograph-edit-it2i",
    "pictograph-style-it2i",
    "flag-map-seen-it2i",
    "flag-question-seen-it2it",
    "flag-question-unseen-it2it",
}


def tasks(folder: Path, split: str) -> list[RetrievalTask]:
    return [load_task(path) for path in list_tasks(folder / "tasks" / split)]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_all_task_types_are_there(small_atlas, split):
    built = tasks(small_atlas, split)
    assert {task.card.name for task in built} >= TASK_NAMES
    assert {task.card.task_type for task in built} == set(TASK_TYPES)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_query_has_an_answer_in_its_pool(small_atlas, split):
    for task in tasks(small_atlas, split):
        pool = {doc.id for doc in task.corpus}
        assert len(pool) == len(task.corpus) == task.card.pool
        assert {query.id for query in task.queries} == task.qrels.keys()
        assert len(task.queries) == task.card.queries > 0, task.card.name
        assert all(docs and docs.keys() <= pool for docs in task.qrels.values())


def test_documents_that_equal_a_relevant_one_are_relevant(small_atlas):
    for task in tasks(small_atlas, "test"):
        items = {doc.id: doc.item for doc in task.corpus}
        for docs in task.qrels.values():
            relevant = {items[id_] for id_ in docs}
            assert docs.keys() == {id_ for id_, item in items.items() if item in relevant}, task.card.name


def test_every_picture_that_is_named_is_there_and_decodes(small_atlas):
    store = ImageStore([small_atlas / "images"])
    named = {item.image for split in ("dev", "test") for task in tasks(small_atlas, split)
             for item in [d.item for d in task.corpus] + [q.item for q in task.queries] if item.image}  # fmt: skip
    for example in read_examples(small_atlas / "examples" / "train"):
        named |= {item.image for item in (example.query, example.positive, *example.negatives) if item.image}
    assert named
    assert all(id_ in store for id_ in named)
    assert {store.load(id_).mode for id_ in sorted(named)[:50]} == {"RGB"}


def test_nothing_about_other_splits_is_trained_on(small_atlas):
    groups = {
        row["entity_group"]: row["split"]
        for name in ("places", "pictographs", "imagined")
        for row in read_rows(small_atlas / "corpus" / f"{name}.parquet")
    }
    assert set(groups.values()) == {"train", "dev", "test"}
    for split in ("train", "dev"):
        examples = read_examples(small_atlas / "examples" / split)
        assert examples
        assert {groups[example.entity_group] for example in examples} == {split}
    for split in ("dev", "test"):
        for task in tasks(small_atlas, split):
            asked = {groups[query.entity_group] for query in task.queries}
            assert asked == {"train" if task.card.subset == "seen" else split}, task.card.name
            if split == "dev":
                assert "test" not in {groups[doc.entity_group] for doc in task.corpus}


def test_no_picture_belongs_to_two_splits(small_atlas):
    splits: dict[str, set[str]] = {}
    for name, columns in (("places", ("flag_twemoji", "flag_openmoji")), ("pictographs", ("twemoji", "openmoji"))):
        for row in read_rows(small_atlas / "corpus" / f"{name}.parquet"):
            for column in columns:
                splits.setdefault(row[column], set()).add(row["split"])
    assert all(len(of_picture) == 1 for of_picture in splits.values())


def test_test_questions_are_worded_as_no_training_question_is(small_atlas):
    wordings = read_rows(small_atlas / "corpus" / "wordings.parquet")
    trained = {row["template"] for row in wordings if row["split"] == "train"}
    task = load_task(small_atlas / "tasks" / "test" / "place-question-t2t")
    places = read_rows(small_atlas / "corpus" / "places.parquet")
    names = sorted((row["name"] for row in places), key=len, reverse=True)
    for query in task.queries:
        name = next(name for name in names if name in query.item.text)
        assert query.item.text.replace(name, "{place}") not in trained


def test_items_and_attribution_state_licences(small_atlas):
    text = (small_atlas / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for task in tasks(small_atlas, "test"):
        for licence in {part for doc in task.corpus for part in doc.licence.split(" AND ")}:
            assert licence in text, (task.card.name, licence)
        assert {doc.licence for doc in task.corpus} <= set(task.card.licences)


_BUILD = """
import sys
from pathlib import Path
from atlas.build import build
from atlas.config import AtlasConfig
build(AtlasConfig(places=10, families=10, queries=10), Path(sys.argv[1]))
"""


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".album" not in path.parts]
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def test_two_builds_in_different_folders_and_hash_seeds_are_equal(tmp_path):
    builds = []
    for number in (1, 2):
        folder = tmp_path / f"build-{number}"
        subprocess.run(
            [sys.executable, "-c", _BUILD, str(folder)],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        )
        builds.append(digests(folder))
    assert len(builds[0]) > 100
    assert builds[0] == builds[1]


def test_a_killed_build_goes_on_and_ends_equal(tmp_path, monkeypatch):
    config = AtlasConfig(places=10, families=10, queries=10)
    monkeypatch.setattr(atlas.album, "_SCRATCH_SHARD_ROWS", 16)
    build(config, tmp_path / "unbroken")
    drawn_before: list[str] = []
    save = Album._save

    def die_late(album, record):
        save(album, record)
        drawn_before.append(record.source)
        if len(drawn_before) == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Album, "_save", die_late)
        build(config, tmp_path / "killed")
    drawn_after: list[str] = []
    monkeypatch.setattr(Album, "_save", lambda _album, record: drawn_after.append(record.source))
    build(config, tmp_path / "killed")
    assert len(set(drawn_before) & set(drawn_after)) < 16
    assert digests(tmp_path / "killed") == digests(tmp_path / "unbroken")
