"""Sends outboxes to the tracker: once while it answers, again later where it did not.

What an outbox lost is said once, noted with the run, and made up for from what else is known. Knows how messages wait
and who tells them; not what they say.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.progress import tell
from gme_release.messages import Tags
from gme_release.outbox import Outbox
from gme_release.refill import complete
from gme_release.settings import RecordSettings
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
        experiment: Where runs go if the outbox does not say any more.
        close_dead: Whether to close runs of the workspace that nobody follows any more.
    """

    def __init__(self, workspace: Path, outbox: Outbox, experiment: str = "", *, close_dead: bool = False) -> None:
        self._workspace, self._outbox = workspace, outbox
        self._experiment, self._close_dead = experiment, close_dead
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self._lost = 0
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
        while not (batch := self._outbox.waiting(_BATCH)).empty:
            delivery = self._delivery or self._connect()
            if batch.lost:
                self._make_up(delivery)
            elif delivery is not None:
                delivery.tell(batch.messages)
            self._outbox.mark_sent(batch.end)

    def _make_up(self, delivery: Delivery | None) -> None:
        """Say what was lost, once, and tell all that is known of the outbox' runs, from whatever still says it."""
        from gme_release.delivery import LOST

        damaged = self._outbox.damaged
        if damaged != self._lost:
            self._lost = damaged
            tell(
                "tracking",
                f"{damaged} message(s) for the tracker are damaged in {self._outbox.folder} and lost; curves are read "
                "again from the events of their steps",
            )
        if delivery is not None:
            noted = Tags(run=self._outbox.folder.name, tags={LOST: str(damaged)})
            delivery.tell([*complete(self._outbox.messages(), self._workspace), noted])

    def _connect(self) -> Delivery | None:
        """A delivery; None where nothing says any more in which experiment the runs belong, nor any message."""
        # Here and not above: MLflow takes seconds to import, and the work need not wait for it.
        from gme_release.delivery import Delivery
        from gme_release.tracker import experiment_of, open_client

        header = self._outbox.header
        experiment = header.experiment if header else self._experiment
        if not experiment:
            return None
        client = open_client(self._workspace)
        found = experiment_of(client, self._workspace, experiment)
        if self._close_dead:
            from gme_release.tracking import close_dead_runs

            close_dead_runs(client, self._workspace, {path.name for path in self._outbox.folder.parent.iterdir()})
        self._delivery = Delivery(client, found, self._outbox.folder)
        return self._delivery


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
                f"The tracker {settings.tracking_uri(workspace)} did not answer for "
                f"{settings.tracker_wait:.0f} s, so the model is not registered: {problem}",
                hint="Nothing is lost: start the tracker and run the same command again to register.",
                exit_code=1,
            )
        time.sleep(pause)
