"""What the environment tells the flows: addresses that are secret or of this machine. Never logged."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class FlowSettings(BaseSettings):
    """Variables ``GME_...``."""

    model_config = SettingsConfigDict(env_prefix="GME_", frozen=True)

    webhook_url: SecretStr | None = None
    """Gets a JSON message when a scheduled run ends; ``GME_WEBHOOK_URL``."""
    workspace: Path = Path()
    """What relative workspaces of requests are below; ``GME_WORKSPACE``."""
