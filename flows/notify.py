"""Tells a webhook how a run ended. Best effort, within seconds: no run fails because nobody listened.

The message is ``{"text": ..., "event": ..., "run": ...}``, which chat services show as it is. The address is a secret.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any, Literal

from flows.settings import FlowSettings

_LOGGER = logging.getLogger(__name__)
_SECONDS = 5.0

Event = Literal["completed", "gate-closed", "failed", "crashed", "skipped"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The message goes where the user said, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer is then an error."""


def tell(event: Event, text: str, run: str = "") -> bool:
    """Send a message if ``GME_WEBHOOK_URL`` is set; returns whether it was taken."""
    url = FlowSettings().webhook_url
    if url is None:
        return False
    body = json.dumps({"text": f"GME Foundry: {text}", "event": event, "run": run}).encode()
    try:
        request = urllib.request.Request(url.get_secret_value(), body, {"Content-Type": "application/json"})  # noqa: S310 - looked at below
        if request.type not in {"http", "https"}:
            raise ValueError("not http")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS):
            return True
    except Exception as error:
        # The type alone: texts of network errors may repeat the address.
        _LOGGER.warning("The webhook did not take the message '%s': %s", event, type(error).__name__)
        return False


def on_failure(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ANN401 - Prefect's hook
    """Hook of Prefect for a flow that raised."""
    tell("failed", f"{flow_run.name} failed", str(flow_run.id))


def on_crashed(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ANN401 - Prefect's hook
    """Hook of Prefect for a flow whose process was told to end."""
    tell("crashed", f"{flow_run.name} crashed", str(flow_run.id))
