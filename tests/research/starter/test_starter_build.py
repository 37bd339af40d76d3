"""The makers of the data refuse each planted leak and count it; the same packages give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageRecord
from gme_data.parquet import read_shards
from research.starter.prove import prove_disjoint


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
def test_a_planted_leak_is_refused_and_counted(made, reason: str, count: int) -> None:
    assert made.drops().get(reason) == count, made.drops()


def test_what_is_not_held_out_is_in_and_the_proof_passes(made) -> None:
    sources = _sources(made.folder)
    wanted = {
        "emoji-a/full-moon@1f315", "emoji-b/full-moon@1f315", "flags/dk", "icons-a/kettle-outline", "icons-b/kettle",
        "stamps/animals/owl",
    }  # fmt: skip
    assert wanted <= sources
    assert not [name for name in sources if "cow" in name or "kneeling" in name or "greece" in name or "gizmo" in name]
    examples = read_examples(made.folder / "train")
    assert {f"{one.source} {one.task_type}" for one in examples} >= {
        "starter-emoji I->I", "starter-icon I->I", "starter-flag I->I", "starter-name T->I", "starter-icon-name I->T",
        "starter-photo T->I", "starter-gloss T->T", "starter-example T->T",
    }  # fmt: skip
    prove_disjoint(made.folder, made.held_out)


def test_the_same_packages_give_the_same_bytes(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.build(tmp_path, monkeypatch)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (made.folder, tmp_path)
    )
    assert first == second


def test_the_attribution_names_every_package(made) -> None:
    text = (made.folder / "ATTRIBUTION.md").read_text()
    assert all(f"{one.name} {one.version}. {one.licence}." in text for one in made.packages)


def test_a_leak_that_the_makers_overlook_is_found_by_the_proof(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.starter.drawings._refuse_emoji", lambda symbol, *_: "" if symbol == "1f315" else "x")
    monkeypatch.setattr("research.starter.drawings.HeldOut.shows", lambda *_: False, raising=False)
    with pytest.raises(FoundryError, match="of what Atlas holds out"):
        made.build(tmp_path, monkeypatch)
