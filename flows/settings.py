"""Settings of the flows from the environment: addresses that are secret or of this machine. They are never logged."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class FlowSettings(BaseSettings):
    """Settings in variables ``GME_...``."""

    model_config = SettingsConfigDict(env_prefix="GME_", frozen=True)

    webhook_url: SecretStr | None = None
    """Gets a JSON message when a scheduled run ends; ``GME_WEBHOOK_URL``."""
    workspace: Path = Path()
    """Folder that relative workspaces of requests start at; ``GME_WORKSPACE``."""
