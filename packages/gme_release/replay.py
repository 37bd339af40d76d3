"""Sends outboxes to the tracker: once while it answers, again later where it did not.

Knows how messages wait and who tells them; not what they say.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gme_release.outbox import Outbox
from gme_release.settings import RecordSettings, mask
from gme_release.trouble import TrackerError, told

if TYPE_CHECKING:
    from gme_release.delivery import Delivery

_BATCH = 500
_LOGGER = logging.getLogger(__name__)


class Sender:
    """Sends one outbox; one thread at a time.

    Args:
        workspace: Whose tracker is told.
        outbox: What is sent.
    """

    def __init__(self, workspace: Path, outbox: Outbox) -> None:
        self._workspace, self._outbox = workspace, outbox
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self.problem = ""
        """Why the last attempt failed; empty if it did not."""

    def send(self) -> bool:
        """Send all that waits; False if the tracker, or the store of its artifacts, does not take it now."""
        try:
            with self._lock:
                self._send_waiting()
        except Exception as error:  # of any library on the way to database, server or store; the work must go on
            if not self.problem:
                _LOGGER.warning("The tracker does not answer; the run goes on and tells it later: %s", told(error))
            self.problem = told(error)
            return False
        self.problem = ""
        return True

    def _send_waiting(self) -> None:
        while True:
            messages, offset = self._outbox.waiting(_BATCH)
            if not messages:
                return
            self._delivery = self._delivery or self._connect()
            self._delivery.tell(messages)
            self._outbox.mark_sent(offset)

    def _connect(self) -> Delivery:
        # Here and not above: MLflow takes seconds to import, and the work need not wait for it.
        from gme_release.delivery import Delivery
        from gme_release.tracker import experiment_of, open_client

        header = next(self._outbox.messages())
        client = open_client(self._workspace)
        return Delivery(client, experiment_of(client, self._workspace, header["experiment"]), self._outbox.folder)


def require_sent(workspace: Path, senders: list[Sender], *, pause: float = 0.5) -> None:
    """Send all of it, as long as `RecordSettings.tracker_wait` allows.

    Raises:
        TrackerError: The tracker took not all of it in that time; the rest is kept.
    """
    settings = RecordSettings.from_environment()
    deadline = time.monotonic() + settings.tracker_wait
    while not all(sender.send() for sender in senders):
        if time.monotonic() > deadline:
            problem = next(sender.problem for sender in senders if sender.problem)
            raise TrackerError(
                f"The tracker {mask(settings.tracking_uri(workspace))} did not answer for "
                f"{settings.tracker_wait:.0f} s, so the model is not registered: {problem}",
                hint="Nothing is lost: start the tracker and run the same command again to register.",
                exit_code=1,
            )
        time.sleep(pause)
