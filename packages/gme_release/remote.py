"""Which DVC remote is meant: the one of the configuration, or the one that ``GME_DVC_REMOTE`` names.

The latter is written into ``.dvc/config.local``, which git does not see, as the remote ``gme``. Addresses only: keys
stay in the environment.
"""

from __future__ import annotations

import configparser
import io
import os
from pathlib import Path

from gme_data.journal import atomic_write
from gme_release.config import ReleaseConfig
from gme_release.settings import RecordSettings

ELSEWHERE = "gme"


def remote_name(config: ReleaseConfig) -> str:
    """Name of the remote that bytes are pushed to."""
    return ELSEWHERE if RecordSettings.from_environment().dvc_remote else config.remote


def name_remote(workspace: Path) -> str | None:
    """Let DVC know the remote of the environment, so that `dvc pull -r gme` works too; None if there is none."""
    url = RecordSettings.from_environment().dvc_remote
    path = workspace / ".dvc" / "config.local"
    if not url:
        return None
    parser = configparser.ConfigParser()
    parser.read(path, encoding="utf-8")
    fields = {"url": url if "://" in url else str(Path(url).resolve()), "verify": "true"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and url.startswith("s3://"):
        fields["endpointurl"] = endpoint
    parser[f"'remote \"{ELSEWHERE}\"'"] = fields
    text = io.StringIO()
    parser.write(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue().encode())
    return ELSEWHERE
