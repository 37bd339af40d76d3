"""DVC's configuration of a workspace: the remote, the cache, and whether DVC works with git.

``.dvc/config`` is written where there is none (a checkout has one). What holds for this machine alone goes into
``.dvc/config.local``, which git ignores: the remote that ``GME_DVC_REMOTE`` names, and ``core.no_scm`` where a
configuration that was made for a git repository lies outside of one. Both hold addresses only: keys stay in the
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
"""Folder of DVC's configuration, below the workspace."""
IGNORED = ("_manifest.json", ".staging")
"""Patterns of ``.dvcignore``; see ``docs/decisions/0002-manifest-outside-dvc.md``."""
_REPAIR_HINT = "Mend it, or delete it: it is written anew."
_LINK_TYPES = "reflink,copy"
"""The ways, in order of preference, in which DVC puts files of its cache into the workspace."""
_FORMER_LINK_TYPES = "hardlink,copy"
"""What earlier versions configured: with hard links, cache and workspace share the bytes of a file."""
_TRUE = ("true", "1", "yes", "on")
"""What DVC reads as true."""


def ensure_dvc_config(workspace: Path, config: ReleaseConfig) -> None:
    """Writes ``.dvc/config`` and ``.dvcignore`` where the workspace has none, and updates ``.dvc/config.local``.

    Raises:
        FoundryError: An existing configuration can't be read.
    """
    path = workspace / HOME / "config"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, dvc_settings(config, in_git=in_git(workspace)).encode())
    write_local_config(workspace)
    ignore = workspace / ".dvcignore"
    if not ignore.exists():
        atomic_write(ignore, "".join(f"{pattern}\n" for pattern in IGNORED).encode())


def write_local_config(workspace: Path) -> None:
    """Writes the settings of this machine into ``.dvc/config.local``; other settings in that file stay.

    Raises:
        FoundryError: An existing configuration can't be read, or an address has credentials in it.
    """
    path = workspace / HOME / "config.local"
    before = _read_sections(path)
    settings: dict[str, Any] = {name: dict(fields) for name, fields in before.items()}
    url = RecordSettings.from_environment().dvc_remote
    if url:
        # With a section of its own, `dvc pull -r gme` works from the command line too.
        settings[_remote_section(ENVIRONMENT_REMOTE)] = {"url": _resolved_url(url), "verify": "true", **_endpoint(url)}
    link_types = _read_config(workspace).get("cache", {}).get("type", _LINK_TYPES)
    if link_types in (_FORMER_LINK_TYPES, _FORMER_LINK_TYPES.split(",")):
        # DVC replaces the hard links of a folder by copies when it adds the folder the next time.
        settings["cache"] = {**settings.get("cache", {}), "type": _LINK_TYPES}
    without_git = _read_config(workspace).get("core", {}).get("no_scm", "false")
    # DVC refuses to work where its configuration expects git and there is no repository.
    if not in_git(workspace) and str(without_git).lower() not in _TRUE:
        settings["core"] = {**settings.get("core", {}), "no_scm": "true"}
    if settings != before:
        atomic_write(path, _format_sections(settings).encode())


def dvc_settings(config: ReleaseConfig, *, in_git: bool) -> str:
    """Returns the text of ``.dvc/config``.

    The cache holds copies (reflinks where the file system has them, which take no disk space until one side changes):
    with hard links, a byte that flips in the workspace flips in the cache. `verify` makes a pull hash what it fetched.
    """
    core = {"analytics": "false", "autostage": "false", "check_update": "false", "remote": config.remote}
    sections = {
        "core": core if in_git else {**core, "no_scm": "true"},
        "cache": {"type": _LINK_TYPES},
        _remote_section(config.remote): {"url": _written_url(config), "verify": "true"},
    }
    return _format_sections(sections)


def in_git(workspace: Path) -> bool:
    """Returns whether the workspace, or a folder above it, is a git repository."""
    root = workspace.resolve()
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def remote_name(config: ReleaseConfig) -> str:
    """Returns the name of the remote that bytes are pushed to."""
    return ENVIRONMENT_REMOTE if RecordSettings.from_environment().dvc_remote else config.remote


def remote_url(workspace: Path, config: ReleaseConfig) -> str:
    """Returns the URL of the remote that bytes are pushed to, as it is or (without ``.dvc/config``) will be configured.

    Raises:
        FoundryError: There is no such remote, or DVC's configuration can't be read.
    """
    environment_url = RecordSettings.from_environment().dvc_remote
    if environment_url:
        return _resolved_url(environment_url)
    path = workspace / HOME / "config"
    if not path.exists():
        return _written_url(config)
    remotes = {name: fields for name, fields in _remotes(_read_config(workspace)).items() if "url" in fields}
    # The name of a remote is not case-sensitive in DVC.
    if config.remote.lower() not in remotes:
        names = ", ".join(sorted(remotes)) or "none"
        raise FoundryError(
            f"release.remote: DVC has no remote '{config.remote}' in {path}; it has: {names}."
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


def cache_folder(workspace: Path) -> Path:
    """Returns the folder of DVC's cache.

    Raises:
        FoundryError: DVC's configuration can't be read.
    """
    configured = _read_config(workspace).get("cache", {}).get("dir")
    if not configured:
        return workspace / HOME / "cache"
    return (workspace / HOME / Path(str(configured)).expanduser()).resolve()


def _written_url(config: ReleaseConfig) -> str:
    """Returns the URL for ``.dvc/config``, from whose folder DVC resolves a relative path."""
    url = _as_dvc_reads(config.remote_url)
    return url if "://" in url or Path(url).is_absolute() else f"../{url}"


def _as_dvc_reads(url: str) -> str:
    """Returns the URL without ``file://`` and ``~``, both of which DVC takes for names of folders."""
    if url.startswith("file://"):
        return str(file_url_path(url))
    return url if "://" in url else str(Path(url).expanduser())


def _endpoint(url: str) -> dict[str, str]:
    """Returns the field that points DVC at an S3 store that is not Amazon's; empty for any other URL."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or not url.startswith("s3://"):
        return {}
    try:
        refuse_credentials(endpoint)
    except ValueError as error:
        raise FoundryError(f"AWS_ENDPOINT_URL: {error}", hint="See docs/records.md.") from error
    return {"endpointurl": endpoint}


def _resolved_url(url: str) -> str:
    read = _as_dvc_reads(url)
    return read if "://" in read else str(Path(read).resolve())


def _read_config(workspace: Path) -> dict[str, Any]:
    """Returns ``.dvc/config``, overridden field by field by ``.dvc/config.local``."""
    merged: dict[str, Any] = {}
    for name in ("config", "config.local"):
        for section, fields in _read_sections(workspace / HOME / name).items():
            merged[section] = {**merged.get(section, {}), **fields}
    return merged


def _read_sections(path: Path) -> dict[str, Any]:
    """Returns the sections of a configuration file, names in lower case as in DVC; empty if there is no file."""
    try:
        text = read_regular(path).decode()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise FoundryError(f"{path} is no configuration of DVC: {error}", hint=_REPAIR_HINT) from error
    try:
        read = ConfigObj(text.splitlines(), encoding="utf-8").dict()
        return {
            section.lower(): {name.lower(): value for name, value in fields.items()} for section, fields in read.items()
        }
    except (ConfigObjError, AttributeError) as error:
        raise FoundryError(f"{path} is no configuration of DVC: {error}", hint=_REPAIR_HINT) from error


def _remotes(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    begin, end = _remote_section("\0").split("\0")
    return {
        section.removeprefix(begin).removesuffix(end): fields
        for section, fields in settings.items()
        if section.startswith(begin) and section.endswith(end)
    }


def _remote_section(remote: str) -> str:
    return f'remote "{remote}"'


def _format_sections(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the sections as text; ConfigObj, which DVC uses, quotes the values that need it."""
    settings = ConfigObj(encoding="utf-8", indent_type="    ", list_values=True, interpolation=False)
    for name, fields in sections.items():
        settings[name] = dict(fields)
    text = io.BytesIO()
    settings.write(text)
    return text.getvalue().decode()
