"""Sends outboxes to the tracker: at once while it answers, later where it did not.

Messages that an outbox lost are reported once, counted in a tag of the run, and recovered as far as possible. Knows how
messages wait and what sends them; not what they say.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gme_data.progress import tell
from gme_release.errors import TrackerError, one_line
from gme_release.settings import RecordSettings
from gme_release.tracking.messages import RunTags
from gme_release.tracking.outbox import Outbox
from gme_release.tracking.recovery import recover_messages
from gme_release.tracking.tags import LOST

if TYPE_CHECKING:
    from gme_release.tracking.delivery import Delivery

_MAX_LINES = 500
_LOGGER = logging.getLogger(__name__)


class Sender:
    """Sends one outbox; one thread at a time.

    Args:
        workspace: The workspace, whose tracker gets the messages.
        outbox: The outbox.
        experiment: Experiment of the runs if the outbox has lost its header.
        close_dead: Whether to close runs of the workspace that no process follows any more.
    """

    def __init__(self, workspace: Path, outbox: Outbox, experiment: str = "", *, close_dead: bool = False) -> None:
        self._workspace, self._outbox = workspace, outbox
        self._experiment, self._close_dead = experiment, close_dead
        self._delivery: Delivery | None = None
        self._lock = threading.Lock()
        self._lost = 0
        self.problem = ""
        """Reason why the last attempt failed; empty if it did not."""

    def send(self) -> bool:
        """Sends all that waits; returns False if the tracker, or the store of its artifacts, does not take it now."""
        try:
            with self._lock:
                self._send_pending()
        except Exception as error:  # any library on the way to database, server or store may raise; the work must go on
            if not self.problem:
                _LOGGER.warning("The tracker does not answer; the run goes on and tells it later: %s", one_line(error))
            self.problem = one_line(error)
            return False
        self.problem = ""
        return True

    def _send_pending(self) -> None:
        while not (batch := self._outbox.pending(_MAX_LINES)).empty:
            delivery = self._delivery or self._connect()
            # With a line lost, nothing says what it was about: all runs of the outbox are sent again.
            if batch.lost:
                self._send_recovered(delivery)
            elif delivery is not None:
                delivery.send(batch.messages)
            # Marked after they were sent: a kill in between sends messages twice, and loses none.
            self._outbox.mark_sent(batch.end)

    def _send_recovered(self, delivery: Delivery | None) -> None:
        """Reports lost messages once, and sends all that can be recovered of the runs in the outbox."""
        damaged = self._outbox.damaged_count
        if damaged != self._lost:
            self._lost = damaged
            tell(
                "tracking",
                f"{damaged} message(s) for the tracker are damaged in {self._outbox.folder} and lost; curves are read "
                "again from the events of their steps",
            )
        if delivery is not None:
            lost_tag = RunTags(run=self._outbox.folder.name, tags={LOST: str(damaged)})
            delivery.send([*recover_messages(self._outbox.messages(), self._workspace), lost_tag])

    def _connect(self) -> Delivery | None:
        """Returns a delivery; None where neither outbox nor caller knows the experiment of the runs."""
        # Imported in this thread: MLflow takes seconds to import, and the work need not wait for it.
        from gme_release.tracking.client import get_or_create_experiment, open_client
        from gme_release.tracking.delivery import Delivery

        header = self._outbox.header
        experiment = header.experiment if header else self._experiment
        if not experiment:
            return None
        client = open_client(self._workspace)
        experiment_id = get_or_create_experiment(client, self._workspace, experiment)
        if self._close_dead:
            from gme_release.tracking.runs import close_dead_runs

            close_dead_runs(client, self._workspace, {path.name for path in self._outbox.folder.parent.iterdir()})
        self._delivery = Delivery(client, experiment_id, self._outbox.folder)
        return self._delivery


def require_sent(workspace: Path, senders: list[Sender], *, pause: float = 0.5) -> None:
    """Sends all outboxes, within the seconds of `RecordSettings.tracker_wait`.

    Raises:
        TrackerError: The tracker did not take all messages in that time; they stay in the outboxes.
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
