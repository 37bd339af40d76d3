"""Fetches the pinned packages of the starter's data with their package managers, checks digests, reads archives."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.progress import track
from gme_data.settings import Frozen
from gme_data.structured import read_yaml

_TABLE = Path(__file__).with_name("packages.yaml")


class Package(Frozen):
    """A package file of a registry."""

    name: str
    """Name in its registry."""
    version: str
    """Exact version."""
    registry: Literal["npm", "debian"]
    """Registry whose package manager fetches the file."""
    role: str
    """Decides how the content is read; see `build`."""
    sha256: str
    """Digest of the package file."""
    licence: str
    """SPDX expression of the content that is used."""
    credit: str
    """Name of the author, for the attribution."""

    @property
    def file(self) -> str:
        """Name of the file that the package manager writes."""
        if self.registry == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"

    @property
    def short(self) -> str:
        """Name without scope."""
        return self.name.rpartition("/")[2]


def read_table() -> tuple[Package, ...]:
    """Returns the pinned packages in the order of the table."""
    return read_yaml(_TABLE, tuple[Package, ...])


def fetch(packages: tuple[Package, ...], folder: Path) -> None:
    """Fetches the packages that `folder` lacks and checks the digests of all.

    Raises:
        FoundryError: A package manager is missing or fails, or a file is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in track(packages, "fetch packages", len(packages), "packages"):
        path = folder / package.file
        if not path.exists():
            _fetch_package(package, folder)
        if not path.exists() or sha256_file(path) != package.sha256:
            raise FoundryError(
                f"{path} is not the pinned {package.name} {package.version}.",
                hint="Delete it and run again; if it stays so, the registry serves another file under this version.",
            )


def _fetch_package(package: Package, folder: Path) -> None:
    """Fetches into a scratch folder and moves the file, so that a killed run leaves no partial package."""
    command = {
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        "debian": ["apt-get", "download", f"{package.name}={package.version}"],
    }[package.registry]
    by_hand = f"put {package.file} into {folder} yourself."
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise FoundryError(
                f"{command[0]} is needed to fetch {package.name}.", hint=f"Install {command[0]}, or {by_hand}"
            ) from error
        except subprocess.CalledProcessError as error:
            raise FoundryError(
                f"{' '.join(command)} failed: {error.stderr.strip()}", hint=f"Look at the message, or {by_hand}"
            ) from error
        fetched = Path(scratch) / package.file
        if fetched.exists():
            fetched.replace(folder / package.file)


def read_members(package: Package, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields ``(path, content)`` of every file of a package, in the order of the archive.

    Raises:
        FoundryError: The archive is damaged, or ``dpkg-deb`` is missing for a Debian package.
    """
    try:
        with _open(package, folder / package.file) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix("./").removeprefix("package/"), content.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise FoundryError(
            f"{folder / package.file} cannot be read: {error}", hint="Delete it and run again."
        ) from error


def _open(package: Package, path: Path) -> tarfile.TarFile:
    if package.registry == "npm":
        return tarfile.open(path)
    try:
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise FoundryError(f"dpkg-deb is needed to read {path}.", hint="Install dpkg.") from error
    except subprocess.CalledProcessError as error:
        raise tarfile.ReadError(error.stderr.decode("utf-8", "replace").strip()) from error
    return tarfile.open(fileobj=io.BytesIO(unpacked.stdout))
