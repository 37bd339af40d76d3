"""Validation of an imported corpus: a sound one passes, and each kind of fault fails the suite that checks for it."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "gme_synthesis"))

from signal_flags import config, import_flags

from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples, write_examples
from gme_data.parquet import read_rows, write_table
from gme_data.steps import StepContext
from gme_data.tasks import load_task
from gme_synthesis.corpus.run import synthesize
from gme_synthesis.corpus.store import PASSAGES_SCHEMA
from gme_validation.config import ValidationConfig
from gme_validation.step import validate_files

Folders = dict[str, Path]
Break = Callable[[Folders], None]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The flags, imported and synthesised; without manifests, so that they can be broken."""
    home = tmp_path_factory.mktemp("files")
    corpus = import_flags(home).folder
    context = StepContext(home / "synthetic", "key", home / "log")
    for folder in (context.staging, context.log_dir):
        folder.mkdir()
    synthesize(config(), {"corpus": corpus}, context)
    shutil.copytree(corpus, home / "corpus", ignore=shutil.ignore_patterns("_manifest.json"))
    return {"corpus": home / "corpus", "synthetic": context.staging}


def validated(folders: Folders, home: Path, **limits: int) -> dict[str, float]:
    context = StepContext(home / "out", "key", home / "log")
    for folder in (context.staging, context.log_dir):
        folder.mkdir()
    return dict(validate_files(ValidationConfig(**limits), folders, context))


def test_a_sound_corpus_passes(clean: Folders, tmp_path: Path) -> None:
    counts = validated(clean, tmp_path)
    assert counts["suites"] >= 7 + 3 * 9
    assert (tmp_path / "out" / "verdict.json").is_file()


def trained(change: Callable[[Example, Folders], Example]) -> Break:
    """Change the first example."""

    def write(folders: Folders) -> None:
        first, *rest = read_examples(folders["synthetic"] / "train")
        write_examples(folders["synthetic"] / "train", [change(first, folders), *rest])

    return write


def held_out_query(folders: Folders, task: str) -> tuple[object, str]:
    query = load_task(folders["synthetic"] / "tasks" / "test" / task).queries[0]
    return query.item, query.entity_group


def of_held_out_entity(example: Example, folders: Folders) -> Example:
    return dataclasses.replace(example, entity_group=held_out_query(folders, "question-t2t")[1])


def with_held_out_picture(example: Example, folders: Folders) -> Example:
    item = held_out_query(folders, "look-i2i")[0]
    return dataclasses.replace(example, task_type="I->I", query=item, positive=item)


def asking_a_test_query(example: Example, folders: Folders) -> Example:
    return dataclasses.replace(example, query=held_out_query(folders, "question-t2t")[0])


def without_text(folders: Folders) -> None:
    (path,) = folders["corpus"].glob("passages-*.parquet")
    rows = read_rows(path)
    write_table(path, [{**rows[0], "text": "", "picture": "0" * 64}, *rows[1:]], PASSAGES_SCHEMA)


@pytest.mark.parametrize(
    ("fault", "suites"),
    [
        (trained(of_held_out_entity), ("training.examples", "no entity group of dev or test")),
        (trained(with_held_out_picture), ("training.examples", "no picture of a dev or test entity")),
        (trained(asking_a_test_query), ("contamination.test", "no query of the benchmark")),
        (without_text, ("corpus.passages", "a passage has a text")),
    ],
    ids=["held-out entity", "held-out picture", "test query", "empty passage"],
)
def test_each_fault_is_reported_with_suite_and_reason(
    clean: Folders, tmp_path: Path, fault: Break, suites: tuple[str, str]
) -> None:
    folders = {name: tmp_path / name for name in clean}
    for name, folder in clean.items():
        shutil.copytree(folder, folders[name])
    fault(folders)
    with pytest.raises(FoundryError) as caught:
        validated(folders, tmp_path)
    assert all(part in str(caught.value) for part in suites), caught.value


def test_floors_are_those_of_the_file(clean: Folders, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match=r"training\.examples"):
        validated(clean, tmp_path, min_examples=10_000)
