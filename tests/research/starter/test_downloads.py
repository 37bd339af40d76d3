"""Packages: only the pinned file is accepted, damage and missing tools are errors, and Debian packages are read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.starter_packages import pack

from gme_data.errors import FoundryError
from research.starter import downloads
from research.starter.downloads import Package, fetch, read_members, read_table


def _row(registry: str, version: str) -> Package:
    return Package(
        name="one", version=version, registry=registry, role="stamps", sha256="0", licence="MIT", credit="Someone"
    )


def test_the_table_pins_each_file_once() -> None:
    table = read_table()
    assert len({package.file for package in table}) == len(table)
    assert all(len(package.sha256) == 64 and package.licence and package.credit for package in table)


def test_another_file_under_the_name_is_refused(tmp_path: Path) -> None:
    package = pack(tmp_path, "@scope/one", "icons", {"a.txt": "a"})
    fetch((package,), tmp_path)
    pack(tmp_path, "@scope/one", "icons", {"a.txt": "b"})
    with pytest.raises(FoundryError, match=r"scope-one-1.0.0.tgz is not the pinned @scope/one 1.0.0"):
        fetch((package,), tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: b"no archive", lambda data: data[:20] + bytes(60)]
)
def test_a_damaged_archive_is_refused(damage, tmp_path: Path) -> None:
    package = pack(tmp_path, "one", "icons", {"a.txt": "a" * 9999, "b.txt": "b"})
    path = tmp_path / package.file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FoundryError, match=r"one-1.0.0.tgz cannot be read"):
        list(read_members(package, tmp_path))


@pytest.mark.parametrize(("registry", "tool"), [("npm", "npm"), ("debian", "apt-get")])
def test_a_missing_package_manager_is_an_error(registry: str, tool: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = _row(registry, "1")
    with pytest.raises(FoundryError, match=f"{tool} is needed to fetch one") as caught:
        fetch((package,), tmp_path)
    assert f"Install {tool}" in caught.value.hint


def test_a_killed_fetch_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch) -> None:
    package = pack(tmp_path, "one", "icons", {"a.txt": "a"})
    data = (tmp_path / package.file).read_bytes()
    (tmp_path / package.file).unlink()

    def killed(command, cwd, **_):
        (Path(cwd) / package.file).write_bytes(data[:10])
        raise KeyboardInterrupt

    def complete(command, cwd, **_):
        (Path(cwd) / package.file).write_bytes(data)

    monkeypatch.setattr(downloads.subprocess, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch((package,), tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(downloads.subprocess, "run", complete)
    fetch((package,), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [package.file]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
def test_a_debian_package_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: one\nVersion: 1:2\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    (root / "usr").mkdir()
    (root / "usr" / "a.txt").write_text("a")
    package = _row("debian", "1:2")
    assert package.file == "one_1%3a2_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(tmp_path / package.file)], check=True, capture_output=True)
    assert list(read_members(package, tmp_path)) == [("usr/a.txt", b"a")]
    (tmp_path / package.file).write_bytes(b"no package")
    with pytest.raises(FoundryError, match="cannot be read"):
        list(read_members(package, tmp_path))


def test_dpkg_deb_missing_is_an_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = _row("debian", "1")
    with pytest.raises(FoundryError, match="dpkg-deb is needed"):
        list(read_members(package, tmp_path))
