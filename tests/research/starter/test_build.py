"""The build drops and counts each planted leak; the same packages give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageRecord
from gme_data.parquet import read_shards
from research.starter.leak_check import check_disjoint


def _sources(folder: Path) -> set[str]:
    return {ImageRecord(**row).source for row in read_shards(folder / "images", "images")}


@pytest.mark.parametrize(
    ("reason", "count"),
    [
        ("emoji: held-out symbol", 2),  # a cow; a kneeling woman of a medium skin tone
        ("emoji: looks like a held-out picture", 1),
        ("flag: held-out place", 3),  # by symbol, by name, by code
        ("flag: no place of Atlas", 1),
        ("icon: held-out name", 4),  # its name, a place in it, a synonym, an alias
        ("icon: looks like a held-out picture", 1),
        ("icon: nothing drawn", 1),
        ("icon: no name to speak of", 1),
        ("photo: held-out name", 1),
        ("gloss: held-out name", 2),
        ("gloss: names something held out", 1),
    ],
)
def test_a_planted_leak_is_refused_and_counted(built, reason: str, count: int) -> None:
    assert built.drops().get(reason) == count, built.drops()


def test_what_is_not_held_out_is_in_the_data_and_the_check_passes(built) -> None:
    sources = _sources(built.folder)
    expected = {
        "emoji-a/full-moon@1f315", "emoji-b/full-moon@1f315", "flags/dk", "icons-a/kettle-outline", "icons-b/kettle",
        "stamps/animals/owl",
    }  # fmt: skip
    assert expected <= sources
    assert not [name for name in sources if "cow" in name or "kneeling" in name or "greece" in name or "gizmo" in name]
    examples = read_examples(built.folder / "train")
    assert {f"{example.source} {example.task_type}" for example in examples} >= {
        "starter-emoji I->I", "starter-icon I->I", "starter-flag I->I", "starter-name T->I", "starter-icon-name I->T",
        "starter-photo T->I", "starter-gloss T->T", "starter-example T->T",
    }  # fmt: skip
    check_disjoint(built.folder, built.held_out)


def test_the_same_packages_give_the_same_bytes(built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built.build(tmp_path, monkeypatch)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (built.folder, tmp_path)
    )
    assert first == second


def test_the_attribution_names_every_package(built) -> None:
    text = (built.folder / "ATTRIBUTION.md").read_text()
    assert all(f"{p.name} {p.version}. {p.licence}." in text for p in built.packages)


def test_a_leak_that_the_readers_miss_is_found_by_the_check(
    built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.starter.candidates._drop_reason", lambda symbol, *_: "" if symbol == "1f315" else "x")
    monkeypatch.setattr("research.starter.candidates.HeldOutEntities.shown_by", lambda *_: False, raising=False)
    with pytest.raises(FoundryError, match="of what Atlas holds out"):
        built.build(tmp_path, monkeypatch)
