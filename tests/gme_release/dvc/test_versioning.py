from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from release_miniature import build_workspace

from gme_data.errors import FoundryError
from gme_data.manifest import damage, read_manifest, write_manifest
from gme_release.config import ReleaseConfig
from gme_release.dvc.command import run_dvc
from gme_release.dvc.config import dvc_settings, ensure_dvc_config
from gme_release.dvc.metric_files import write_metric_files
from gme_release.dvc.pointers import read_tracked_folder
from gme_release.dvc.versioning import pull_folder, version_outputs
from gme_release.run_facts import RunFacts

CHECKOUT = Path(__file__).resolve().parents[3]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def objects(store: Path) -> list[Path]:
    return sorted(path for path in (store / "files" / "md5").rglob("*") if path.is_file())


def object_of(store: Path, size_above: int) -> Path:
    return next(path for path in objects(store) if path.stat().st_size > size_above)


@pytest.fixture
def versioned(facts: RunFacts, config: ReleaseConfig) -> Path:
    version_outputs(facts.workspace, config)
    return facts.workspace


def test_pointer_depends_on_content_alone(versioned: Path, config: ReleaseConfig) -> None:
    before = (versioned / "data.dvc").read_bytes()
    for manifest_path in versioned.glob("data/*/_manifest.json"):
        manifest = read_manifest(manifest_path.parent)
        assert manifest is not None
        write_manifest(manifest_path.parent, replace(manifest, seconds=99.0, versions={"torch": "0"}))
    shutil.copytree(versioned / "data", versioned / "rebuilt", copy_function=shutil.copyfile)
    shutil.rmtree(versioned / "data")  # a step replaces its output as a whole, read-only files or not
    (versioned / "rebuilt").rename(versioned / "data")
    version_outputs(versioned, config)
    assert (versioned / "data.dvc").read_bytes() == before

    (versioned / "data" / "atlas" / "README.md").unlink()
    (versioned / "data" / "atlas" / "README.md").write_text("changed\n")
    version_outputs(versioned, config)
    assert (versioned / "data.dvc").read_bytes() != before


def test_what_is_returned_is_in_the_remote(versioned: Path, config: ReleaseConfig) -> None:
    found = version_outputs(versioned, config)
    assert [folder.path for folder in found.folders] == ["data", "checkpoints"]
    assert found.of("data/atlas") == read_tracked_folder(versioned, "data")
    assert found.of("runs/report") is None
    data = found.folders[0]
    assert (versioned / "dvc-store" / "files" / "md5" / data.md5[:2] / data.md5[2:]).is_file()
    assert data.nfiles == 4
    assert data.size == sum(p.stat().st_size for p in versioned.glob("data/*/*") if p.name != "_manifest.json")


def test_what_the_remote_has_is_not_pushed_again(
    versioned: Path, config: ReleaseConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def spy(workspace: Path, *arguments: str) -> str:
        calls.append(arguments)
        return run_dvc(workspace, *arguments)

    monkeypatch.setattr("gme_release.dvc.versioning.run_dvc", spy)
    version_outputs(versioned, config)
    assert calls == [("add", "data", "checkpoints")]
    (versioned / "data" / "atlas" / "more.txt").write_text("more\n")
    version_outputs(versioned, config)
    assert calls[2:] == [("push", "--remote", "store", "data.dvc")], "the checkpoints are there"


@pytest.mark.hardening("faults", "F11", "kill -9 between dvc add and push")
def test_killed_between_add_and_push(facts: RunFacts, config: ReleaseConfig) -> None:
    """By an older release, whose cache was hard-linked to the workspace: a byte that flipped in one flipped in both."""
    ensure_dvc_config(facts.workspace, config)
    settings = facts.workspace / ".dvc" / "config"
    settings.write_text(settings.read_text().replace("reflink,copy", "hardlink,copy"))
    run_dvc(facts.workspace, "add", *config.tracked)  # as far as a run got that died before its push
    pointer = (facts.workspace / "data.dvc").read_bytes()
    data = facts.workspace / "data/atlas/examples.parquet.txt"
    assert data.stat().st_nlink == 2
    assert not (facts.workspace / "dvc-store").exists()
    version_outputs(facts.workspace, config)
    assert {path.stat().st_nlink for path in facts.workspace.rglob("data/*/*")} == {1}
    before = data.read_bytes()
    flip_a_byte(data)
    assert data.read_bytes() != before
    assert before in {path.read_bytes() for path in objects(facts.workspace / ".dvc" / "cache")}
    data.write_bytes(before)
    assert (facts.workspace / "data.dvc").read_bytes() == pointer
    assert len(objects(facts.workspace / "dvc-store")) == len(objects(facts.workspace / ".dvc" / "cache"))


@pytest.mark.hardening("faults", "F24", "bytes lost or flipped in DVC's cache and remote")
def test_objects_missing_or_damaged_in_cache_and_remote_are_written_again(
    versioned: Path, config: ReleaseConfig
) -> None:
    store, cache = versioned / "dvc-store", versioned / ".dvc" / "cache"
    expected = {path.relative_to(store): path.read_bytes() for path in objects(store)}
    objects(store)[0].unlink()
    flip_a_byte(object_of(store, 40_000))
    damaged = object_of(cache, 40_000)
    good = damaged.read_bytes()
    flip_a_byte(damaged)
    version_outputs(versioned, config)
    assert {path.relative_to(store): path.read_bytes() for path in objects(store)} == expected
    assert damaged.read_bytes() == good
    for folder in ("data/atlas", "checkpoints/stage2"):
        manifest = read_manifest(versioned / folder)
        assert manifest is not None
        assert damage(versioned / folder, manifest) == []


def fresh_clone(origin: Path, clone: Path, config: ReleaseConfig) -> Path:
    """What git would bring: pointers and configuration, no bytes."""
    clone.mkdir()
    ensure_dvc_config(clone, config.model_copy(update={"remote_url": str(origin / "dvc-store")}))
    for pointer in origin.glob("*.dvc"):
        if pointer.is_file():
            shutil.copy(pointer, clone)
    return clone


def test_a_clone_fetches_the_bytes(versioned: Path, config: ReleaseConfig, tmp_path: Path) -> None:
    clone = fresh_clone(versioned, tmp_path / "clone", config)
    pull_folder(clone, "data")
    for path in (p for p in (versioned / "data").rglob("*") if p.is_file() and p.name != "_manifest.json"):
        assert (clone / path.relative_to(versioned)).read_bytes() == path.read_bytes()
    assert not list(clone.rglob("_manifest.json"))


@pytest.mark.hardening("faults", "F24", "bytes lost or flipped in DVC's cache and remote")
def test_a_flipped_byte_in_the_remote_is_refused(versioned: Path, config: ReleaseConfig, tmp_path: Path) -> None:
    clone = fresh_clone(versioned, tmp_path / "clone", config)
    flip_a_byte(object_of(versioned / "dvc-store", 40_000))
    with pytest.raises(FoundryError, match="dvc pull"):
        pull_folder(clone, "data")


def test_a_remote_that_takes_nothing(facts: RunFacts, config: ReleaseConfig) -> None:
    (facts.workspace / "dvc-store").write_text("a file where the store should be")
    with pytest.raises(FoundryError, match=r"does not take the bytes.*dvc push"):
        version_outputs(facts.workspace, config)


def test_user_mistakes(facts: RunFacts, config: ReleaseConfig) -> None:
    with pytest.raises(FoundryError, match="nothing-here"):
        version_outputs(facts.workspace, config.model_copy(update={"tracked": ("data", "nothing-here")}))
    ensure_dvc_config(facts.workspace, config)
    with pytest.raises(FoundryError, match="no remote 'elsewhere'"):
        version_outputs(facts.workspace, config.model_copy(update={"remote": "elsewhere"}))
    (facts.workspace / "data.dvc").write_text("outs: []\n")
    with pytest.raises(FoundryError, match="no pointer of DVC 3"):
        read_tracked_folder(facts.workspace, "data")


def test_a_checkout_without_git_is_versioned_without_git(facts: RunFacts, config: ReleaseConfig) -> None:
    """The sources from an archive: the configuration expects a repository, and there is none."""
    (facts.workspace / ".dvc").mkdir()
    shutil.copy(CHECKOUT / ".dvc/config", facts.workspace / ".dvc")
    assert version_outputs(facts.workspace, config).folders[0].nfiles == 4
    assert (facts.workspace / ".dvc/config").read_text() == (CHECKOUT / ".dvc/config").read_text()
    assert "no_scm" in (facts.workspace / ".dvc/config.local").read_text()


def test_what_others_wrote_for_this_machine_stays(tmp_path: Path, config: ReleaseConfig) -> None:
    local = tmp_path / ".dvc/config.local"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    local.write_text("[core]\n    no_scm = true\n['remote \"store\"']\n    user = me\n")
    before = local.read_text()
    ensure_dvc_config(tmp_path, config)
    assert local.read_text() == before


def test_strange_names_of_remotes_and_folders(tmp_path: Path) -> None:
    """Characters that DVC's configuration gives a meaning to, in the workspace and in the address."""
    workspace = tmp_path / "we ird?#%41+ü:x, 'y'"
    workspace.mkdir()
    facts = build_workspace(workspace)
    config = ReleaseConfig(remote="Store", remote_url="a#b, 'c'%d?")
    version_outputs(facts.workspace, config)
    assert objects(workspace / "a#b, 'c'%d?")
    assert not (workspace / "dvc-store").exists()


def test_an_empty_folder_is_nothing_to_version(tmp_path: Path, config: ReleaseConfig) -> None:
    build_workspace(tmp_path)
    (tmp_path / "extra").mkdir()
    with pytest.raises(FoundryError, match=r"extra in .* holds no file"):
        version_outputs(tmp_path, config.model_copy(update={"tracked": ("data", "extra")}))


def test_committed_configuration_is_the_generated_one() -> None:
    assert (CHECKOUT / ".dvc" / "config").read_text() == dvc_settings(ReleaseConfig(), in_git=True)
    assert "_manifest.json" in (CHECKOUT / ".dvcignore").read_text().split()


def test_dvc_yaml_has_no_stages_and_dvc_reads_it(facts: RunFacts, config: ReleaseConfig) -> None:
    assert "stages" not in (CHECKOUT / "dvc.yaml").read_text().replace("NO stages", "").replace("No stages", "")
    ensure_dvc_config(facts.workspace, config)
    shutil.copy(CHECKOUT / "dvc.yaml", facts.workspace)
    write_metric_files(facts.workspace, facts.folder("report"))
    shown = run_dvc(facts.workspace, "metrics", "show", "--json")
    assert '"overall": 0.7' in shown
