"""`gme scrub` starts from what the records name: whatever of it is lost is told, and nothing named is no success."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from release_miniature import build_workspace

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_release.config import ReleaseConfig
from gme_release.dvc.pointers import read_tracked_folder
from gme_release.dvc.versioning import version_outputs
from gme_release.release.audit import audit
from gme_release.settings import local_database

CONFIG = ReleaseConfig()
CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("pushed")
    build_workspace(workspace)
    version_outputs(workspace, CONFIG)
    return workspace


@pytest.fixture
def workspace(pushed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed, tmp_path / "workspace"))


def stored(store: Path, md5: str) -> Path:
    return store / "files" / "md5" / md5[:2] / md5[2:]


def lose_listing(workspace: Path) -> None:
    stored(workspace / "dvc-store", read_tracked_folder(workspace, "data").md5).unlink()


def lose_object(workspace: Path) -> None:
    listing = stored(workspace / "dvc-store", read_tracked_folder(workspace, "data").md5)
    stored(workspace / "dvc-store", json.loads(listing.read_text())[0]["md5"]).unlink()


def move_cache_away(workspace: Path) -> None:
    """To a folder that DVC is told of and that is not there: what was looked at before is not what DVC uses."""
    settings = workspace / ".dvc" / "config"
    settings.write_text(settings.read_text().replace("[cache]\n", "[cache]\n    dir = ../elsewhere\n"))


@pytest.mark.parametrize(
    ("lose", "place", "told"),
    [
        (lambda w: shutil.rmtree(w / "dvc-store"), "remote ../dvc-store", "data.dvc names {data}, which is not in the"),
        (lambda w: shutil.rmtree(w / ".dvc/cache"), "cache", "which is not in the cache (there is no such folder)"),
        (lose_listing, "remote ../dvc-store", "data.dvc names {data}, which is not in the remote ../dvc-store"),
        (lose_object, "remote ../dvc-store", "lists 1 objects that are missing"),
        (move_cache_away, "cache", "checkpoints.dvc names"),
        (lambda w: (w / "data.dvc").unlink(), "pointers", "data.dvc is missing"),
        (lambda w: (w / "data.dvc").write_text("outs: []\n"), "pointers", "data.dvc is no pointer"),
        (lambda w: (w / "data.dvc").write_text("- x"), "pointers", "data.dvc is no pointer"),
        (
            lambda w: (w / "more.dvc").write_text(f"outs:\n- {{md5: {'a' * 32}, hash: md5, path: more}}\n"),
            "cache",
            "more.dvc names aaaa",
        ),
    ],
    ids=["remote", "cache", "listing", "object", "cache-dir", "pointer", "empty-pointer", "no-pointer", "a-file"],
)
@pytest.mark.hardening("faults", "F24", "bytes lost or flipped in DVC's cache and remote")
def test_what_is_lost_is_named(
    workspace: Path, lose: Callable[[Path], object], place: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_tracked_folder(workspace, "data").md5
    assert run(["scrub", "--workspace", str(workspace), "--config", str(CHECKOUT / "configs/tiny.yaml")]) == 0
    lose(workspace)
    found = audit(workspace, CONFIG)
    assert any(told.format(data=data) in one.what for one in found[place]), found
    capsys.readouterr()
    assert run(["scrub", "--workspace", str(workspace), "--config", str(CHECKOUT / "configs/tiny.yaml")]) == 1
    assert told.format(data=data) in capsys.readouterr().out


def test_no_pointer_is_nothing_to_check_and_no_success(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match=r"Nothing to check: no pointer \(\*\.dvc\)") as refused:
        audit(tmp_path, CONFIG)
    assert refused.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_repair_removes_what_is_there_and_the_next_run_brings_the_rest_back(workspace: Path) -> None:
    lose_listing(workspace)
    victim = next(path for path in (workspace / "dvc-store/files/md5").rglob("*") if path.is_file())
    victim.chmod(0o644)
    victim.write_bytes(b"flipped")
    assert any(audit(workspace, CONFIG, repair=True).values())
    version_outputs(workspace, CONFIG)
    assert not any(audit(workspace, CONFIG).values())


def test_registered_versions_and_releases_name_bytes_too(workspace: Path, empty_database: Path) -> None:
    from gme_release.tracking.client import open_client

    local_database(workspace).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_database, local_database(workspace))
    client = open_client(workspace)
    client.create_registered_model(CONFIG.model_name)
    lost = f"{'b' * 32}.dir"
    client.create_model_version(CONFIG.model_name, source=str(workspace), tags={"gme.dvc.data": lost})
    [damage] = audit(workspace, CONFIG)["remote ../dvc-store"]
    assert damage.what == f"version 1 of gme-tiny names {lost}, which is not in the remote ../dvc-store"
