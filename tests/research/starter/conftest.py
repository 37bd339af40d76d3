"""A small Atlas, packages with one leak of each kind in them, and the starter's data made of both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import ImageChops
from support.small_atlas import build_small_atlas
from support.starter_packages import RING, SQUARE, embedded, icon_set, pack, png, shape, wordnet

from research.starter import build as build_module
from research.starter.config import StarterDataConfig
from research.starter.downloads import Package
from research.starter.held_out import HeldOutEntities, read_held_out

CONFIG = StarterDataConfig(pictures=220, invented_flags=8, names_per_passage=1)


def letters(code: str) -> str:
    """The emoji of a flag, as hex code points."""
    return "-".join(f"{0x1F1E6 + ord(letter) - ord('a'):x}" for letter in code)


@dataclass(frozen=True)
class BuiltData:
    """The starter's data in `folder`, and their inputs."""

    folder: Path
    atlas: Path
    downloads: Path
    packages: tuple[Package, ...]
    held_out: HeldOutEntities

    def drops(self) -> dict[str, int]:
        return json.loads((self.folder / "drops.json").read_text())

    def build(self, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, float]:
        patch.setattr(build_module, "read_table", lambda: self.packages)
        return build_module.build(CONFIG, self.atlas, self.downloads, folder)


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_atlas(tmp_path_factory)


@pytest.fixture(scope="session")
def held_out(small_atlas: Path) -> HeldOutEntities:
    held_out = read_held_out(small_atlas, {"cow": frozenset(["cow", "moo-cow"])})
    splits = {row["id"]: row["split"] for row in held_out.pictographs}
    splits |= {row["place_id"]: row["split"] for row in held_out.places}
    # The packages below assume these splits.
    assert {splits[name] for name in ("1f315", "1f407", "dk", "gh")} == {"train"}
    assert "train" not in {splits[name] for name in ("1f42e", "1f9ce", "1f9fd", "ad", "gr")}
    return held_out


def _packages(folder: Path, held_out: HeldOutEntities) -> tuple[Package, ...]:
    sponge = next(row for row in held_out.pictographs if row["id"] == "1f9fd")
    copy = embedded(ImageChops.offset(held_out.store.load(sponge["twemoji"]), 1, 0))
    emoji_a = {
        "full-moon": shape(37), "rabbit": shape(90), "cow-face": shape(111), "kneeling-woman": shape(120),
        "carrot": copy, "flag-dk": shape(12), "flag-ad": shape(52), "ghost-town": shape(53),
    }  # fmt: skip
    symbols = {
        "1f315": "full-moon", "1f407": "rabbit", "1f42e": "cow-face", "1f9ce-1f3fd-200d-2640-fe0f": "kneeling-woman",
        "1f955": "carrot", letters("dk"): "flag-dk", letters("ad"): "flag-ad",
    }  # fmt: skip
    emoji_b = {"full-moon": shape(73), "rabbit": shape(146), "flag-for-greece": shape(54), "flag-for-ghana": shape(58)}
    icons_a = {
        "kettle-outline": RING, "sponge": shape(150), "map-of-andorra": shape(151), "moo-cow": shape(152),
        "dishes": shape(153), "gizmo": copy, "blank-paper": '<rect width="0" height="0"/>', "x": shape(154),
        "lantern": SQUARE.format("#0a0"),
    }  # fmt: skip
    icons_b = {"kettle": shape(170), "lantern": shape(171)}
    stamps = {
        "animals/owl.png": png(held_out.store.load(held_out.train_pictographs["1f98e"]["twemoji"]).rotate(90)),
        "animals/owl.txt": "An owl.\nde.utf8=Eine Eule.\nes.utf8=Una lechuza.\nit.utf8=Un gufo.\n",
        "animals/one.png": png(held_out.store.load(held_out.train_pictographs["1f407"]["twemoji"]).rotate(90)),
        "animals/one.txt": "A brown cow.\n",
    }
    return (
        icon_set(folder, "emoji-a", "emoji", emoji_a, symbols),
        icon_set(folder, "emoji-b", "emoji", emoji_b),
        icon_set(folder, "flags", "flags", {"dk": shape(60), "gr-4x3": shape(61), "zz": shape(62)}),
        icon_set(folder, "icons-a", "icons", icons_a, aliases={"washing-sponge": {"parent": "dishes"}}),
        icon_set(folder, "icons-b", "icons", icons_b),
        pack(folder, "stamps", "stamps", {f"usr/share/tuxpaint/stamps/{path}": data for path, data in stamps.items()}),
        wordnet(folder),
    )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, small_atlas: Path, held_out: HeldOutEntities) -> BuiltData:
    downloads, folder = tmp_path_factory.mktemp("downloads"), tmp_path_factory.mktemp("starter")
    result = BuiltData(folder, small_atlas, downloads, _packages(downloads, held_out), held_out)
    with pytest.MonkeyPatch.context() as patch:
        result.build(folder, patch)
    return result
