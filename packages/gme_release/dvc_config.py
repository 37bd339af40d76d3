"""DVC's configuration of a workspace: which remote is meant, where it and the cache lie, whether git takes part.

``.dvc/config`` is written where there is none (a checkout has one). What holds for this machine alone goes into
``.dvc/config.local``, which git does not see: the remote that ``GME_DVC_REMOTE`` names, and that DVC is to do without
git where a configuration that was made for a git repository lies outside of one. Addresses only: keys stay in the
environment. Runs no DVC.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configobj import ConfigObj, ConfigObjError

from gme_data.errors import FoundryError, did_you_mean
from gme_data.journal import atomic_write
from gme_data.structured import read_regular
from gme_data.urls import file_url_path
from gme_release.config import ReleaseConfig
from gme_release.names import ENVIRONMENT_REMOTE
from gme_release.settings import RecordSettings, check_store, refuse_credentials

HOME = Path(".dvc")
IGNORED = ("_manifest.json", ".staging")
_MEND = "Mend it, or delete it: it is written anew."
_LINKS, _FORMER_LINKS = "reflink,copy", "hardlink,copy"
"""How DVC puts files of its cache into the workspace; the former one shared each byte between the two."""
_TRUE = ("true", "1", "yes", "on")


def prepare(workspace: Path, config: ReleaseConfig) -> None:
    """Give the workspace a DVC configuration and ``.dvcignore`` unless it has them, and settle what this machine needs.

    Raises:
        FoundryError: A configuration that is there can't be read.
    """
    path = workspace / HOME / "config"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, dvc_settings(config, in_git=in_git(workspace)).encode())
    settle_local(workspace)
    ignore = workspace / ".dvcignore"
    if not ignore.exists():
        atomic_write(ignore, "".join(f"{pattern}\n" for pattern in IGNORED).encode())


def settle_local(workspace: Path) -> None:
    """Write what this machine needs into ``.dvc/config.local``; what somebody else wrote there stays.

    Raises:
        FoundryError: A configuration that is there can't be read, or an address has credentials in it.
    """
    path = workspace / HOME / "config.local"
    before = _load(path)
    settings: dict[str, Any] = {name: dict(fields) for name, fields in before.items()}
    url = RecordSettings.from_environment().dvc_remote
    if url:
        # So that `dvc pull -r gme` works too.
        settings[_section(ENVIRONMENT_REMOTE)] = {"url": _absolute_url(url), "verify": "true", **_endpoint(url)}
    kind = _read(workspace).get("cache", {}).get("type", _LINKS)
    if kind == _FORMER_LINKS or kind == _FORMER_LINKS.split(","):
        # DVC replaces the links of a folder by copies when it adds it the next time.
        settings["cache"] = {**settings.get("cache", {}), "type": _LINKS}
    without_git = _read(workspace).get("core", {}).get("no_scm", "false")
    if not in_git(workspace) and str(without_git).lower() not in _TRUE:
        settings["core"] = {**settings.get("core", {}), "no_scm": "true"}
    if settings != before:
        atomic_write(path, _text(settings).encode())


def dvc_settings(config: ReleaseConfig, *, in_git: bool) -> str:
    """Text of ``.dvc/config``.

    The cache is a copy of its own (a reflink where the file system has them, which costs no room until one of the two
    changes): with hard links a byte that flips in the workspace flips in the cache. `verify` makes a pull hash what it
    fetched.
    """
    core = {"analytics": "false", "autostage": "false", "check_update": "false", "remote": config.remote}
    sections = {
        "core": core if in_git else {**core, "no_scm": "true"},
        "cache": {"type": _LINKS},
        _section(config.remote): {"url": _written_url(config), "verify": "true"},
    }
    return _text(sections)


def in_git(workspace: Path) -> bool:
    """Whether the workspace lies in a git repository: its own or that of a folder above."""
    home = workspace.resolve()
    return any((folder / ".git").exists() for folder in (home, *home.parents))


def remote_name(config: ReleaseConfig) -> str:
    """Name of the remote that bytes are pushed to."""
    return ENVIRONMENT_REMOTE if RecordSettings.from_environment().dvc_remote else config.remote


def remote_url(workspace: Path, config: ReleaseConfig) -> str:
    """Address of the remote that bytes are pushed to, as configured; before `prepare`, as it will be configured.

    Raises:
        FoundryError: There is no such remote, or DVC's configuration can't be read.
    """
    elsewhere = RecordSettings.from_environment().dvc_remote
    if elsewhere:
        return _absolute_url(elsewhere)
    path = workspace / HOME / "config"
    if not path.exists():
        return _written_url(config)
    remotes = {name: fields for name, fields in _remotes(_read(workspace)).items() if "url" in fields}
    # DVC does not tell upper from lower case in the name of a remote.
    if config.remote.lower() not in remotes:
        known = ", ".join(sorted(remotes)) or "none"
        raise FoundryError(
            f"release.remote: DVC has no remote '{config.remote}' in {path}; it has: {known}."
            f"{did_you_mean(config.remote, remotes)}",
            hint=f"Run `dvc remote add {config.remote} <url>`, or name another remote in the config (release.remote).",
        )
    url = str(remotes[config.remote.lower()]["url"])
    try:
        if url.startswith("file://"):
            raise ValueError("DVC takes file:// for a folder of that name; write the folder's own path")
        return check_store(url)
    except ValueError as error:
        raise FoundryError(
            f"The url of the remote '{config.remote}' in {path}: {error}", hint="Set it with `dvc remote modify`."
        ) from error


def local_folder(workspace: Path, url: str) -> Path | None:
    """The folder on this machine that the address of a remote names; None for one that is elsewhere."""
    return None if "://" in url else (workspace / HOME / Path(url).expanduser()).resolve()


def cache_folder(workspace: Path) -> Path:
    """Where DVC keeps its cache.

    Raises:
        FoundryError: DVC's configuration can't be read.
    """
    configured = _read(workspace).get("cache", {}).get("dir")
    if not configured:
        return workspace / HOME / "cache"
    return (workspace / HOME / Path(str(configured)).expanduser()).resolve()


def _written_url(config: ReleaseConfig) -> str:
    """The address that `prepare` writes: DVC reads a relative one from the folder of its configuration file."""
    url = _as_dvc_reads(config.remote_url)
    return url if "://" in url or Path(url).is_absolute() else f"../{url}"


def _as_dvc_reads(url: str) -> str:
    """DVC takes ``file://`` for a folder of that name, and ``~`` below another folder for one as well."""
    if url.startswith("file://"):
        return str(file_url_path(url))
    return url if "://" in url else str(Path(url).expanduser())


def _endpoint(url: str) -> dict[str, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or not url.startswith("s3://"):
        return {}
    try:
        refuse_credentials(endpoint)
    except ValueError as error:
        raise FoundryError(f"AWS_ENDPOINT_URL: {error}", hint="See docs/records.md.") from error
    return {"endpointurl": endpoint}


def _absolute_url(url: str) -> str:
    read = _as_dvc_reads(url)
    return read if "://" in read else str(Path(read).resolve())


def _read(workspace: Path) -> dict[str, Any]:
    """``.dvc/config`` with what ``.dvc/config.local`` says on top."""
    merged: dict[str, Any] = {}
    for name in ("config", "config.local"):
        for section, fields in _load(workspace / HOME / name).items():
            merged[section] = {**merged.get(section, {}), **fields}
    return merged


def _load(path: Path) -> dict[str, Any]:
    """The sections of a configuration file, names in lower case as DVC takes them; empty if there is no file."""
    try:
        text = read_regular(path).decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise FoundryError(f"{path} is no configuration of DVC: {error}", hint=_MEND) from error
    try:
        read = ConfigObj(text.splitlines(), encoding="utf-8").dict()
        return {
            section.lower(): {name.lower(): value for name, value in fields.items()} for section, fields in read.items()
        }
    except (ConfigObjError, AttributeError) as error:
        raise FoundryError(f"{path} is no configuration of DVC: {error}", hint=_MEND) from error


def _remotes(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    begin, end = _section("\0").split("\0")
    return {
        section.removeprefix(begin).removesuffix(end): fields
        for section, fields in settings.items()
        if section.startswith(begin) and section.endswith(end)
    }


def _section(remote: str) -> str:
    return f'remote "{remote}"'


def _text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """In DVC's form, every value quoted where the form needs it."""
    settings = ConfigObj(encoding="utf-8", indent_type="    ", list_values=True, interpolation=False)
    for name, fields in sections.items():
        settings[name] = dict(fields)
    text = io.BytesIO()
    settings.write(text)
    return text.getvalue().decode()
