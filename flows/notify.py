"""Notifies a webhook of how a run ended, within seconds; errors are logged, and no run fails because of them.

The message is ``{"text": ..., "event": ..., "run": ...}``, which chat services show as it is. The address is a secret.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any, Literal

from flows.settings import FlowSettings

_LOGGER = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0

Event = Literal["completed", "gate-closed", "failed", "crashed", "skipped"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the message goes to the configured address alone."""

    def redirect_request(self, *_: object) -> None:
        """Returns None, which makes the answer an error."""


def notify(event: Event, text: str, run: str = "") -> bool:
    """Sends a message if ``GME_WEBHOOK_URL`` is set; returns whether it was accepted."""
    url = FlowSettings().webhook_url
    if url is None:
        return False
    body = json.dumps({"text": f"GME Foundry: {text}", "event": event, "run": run}).encode()
    try:
        request = urllib.request.Request(url.get_secret_value(), body, {"Content-Type": "application/json"})  # noqa: S310 - its scheme is checked below
        if request.type not in {"http", "https"}:
            raise ValueError("not http")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_SECONDS):
            return True
    except Exception as error:
        # The type alone: the message of a network error may have the address.
        _LOGGER.warning("The webhook did not take the message '%s': %s", event, type(error).__name__)
        return False


def on_failure(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ANN401 - Prefect's hook
    """Notifies of a flow that raised; a hook of Prefect's."""
    notify("failed", f"{flow_run.name} failed", str(flow_run.id))


def on_crashed(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ANN401 - Prefect's hook
    """Notifies of a flow whose process was told to end; a hook of Prefect's."""
    notify("crashed", f"{flow_run.name} crashed", str(flow_run.id))
