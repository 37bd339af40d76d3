"""Messages of an outbox, told to MLflow. Each may be told twice: the second time changes nothing.

Runs are looked up by a tag before they are created, times come with the message, and MLflow keeps one of two equal
points of a metric. A message that MLflow will never take (a run that somebody deleted) is logged and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from gme_release.messages import Begin, End, File, Message, Metrics, Tags
from gme_release.trouble import told

FOLLOWED = "gme.followed"
"""Tag of a run that was opened before the work; its value is unique."""
LOST = "gme.lost_messages"
"""Tag of a run whose outbox lost messages: how many."""
_PARENT = "mlflow.parentRunId"
_PARAMS, _METRICS = 100, 1000  # MLflow takes so many in one call
_NEVER = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


class Delivery:
    """Tells MLflow about one pipeline run and its steps.

    Args:
        client: A client whose tracker answers.
        experiment_id: Where new runs go.
        folder: Folder of the outbox; paths in messages are relative to it.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, folder: Path) -> None:
        self._client, self._experiment, self._folder = client, experiment_id, folder
        self._ids: dict[str, str] = {}

    def tell(self, messages: Iterable[Message]) -> None:
        """Tell messages in order; points of metrics that follow each other go together.

        Raises:
            MlflowException: The tracker does not answer; nothing says how far it came, so tell them all again.
        """
        for _, group in groupby(messages, key=lambda message: (message.kind, message.run)):
            together = list(group)
            metrics = [message for message in together if isinstance(message, Metrics)]
            for message in [_joined(metrics)] if metrics else together:
                self._tell(message)

    def _tell(self, message: Message) -> None:
        try:
            match message:
                case Begin():
                    self._begin(message)
                case Metrics():
                    self._metrics(message)
                case Tags():
                    self._tags(message)
                case File():
                    self._file(message)
                case End():
                    self._end(message)
        except MlflowException as error:
            if error.error_code not in _NEVER:
                raise
            _LOGGER.warning("MLflow does not take a message about %s: %s", message.run, told(error))

    def _begin(self, message: Begin) -> None:
        run_id = self._id(message.run) or self._create(message)
        self._client.update_run(run_id, status="RUNNING")  # where a killed process left off, another goes on
        for params in _batches(message.params.items(), _PARAMS):
            self._client.log_batch(run_id, params=[Param(name, value) for name, value in params])

    def _create(self, message: Begin) -> str:
        tags = {**message.tags, FOLLOWED: message.run}
        parent, slash, _ = message.run.partition("/")
        if slash and (parent_id := self._id(parent)):
            tags[_PARENT] = parent_id
        run = self._client.create_run(self._experiment, start_time=message.time, run_name=message.name, tags=tags)
        self._ids[message.run] = str(run.info.run_id)
        return self._ids[message.run]

    def _metrics(self, message: Metrics) -> None:
        points = [Metric(name, value, time, step) for name, value, time, step in message.points]
        for batch in _batches(points, _METRICS):
            self._client.log_batch(self._known(message), metrics=batch)

    def _tags(self, message: Tags) -> None:
        tags = [RunTag(name, value) for name, value in message.tags.items()]
        self._client.log_batch(self._known(message), tags=tags)

    def _file(self, message: File) -> None:
        path = self._folder / message.path
        if not path.is_file():
            _LOGGER.warning("A file of %s for the tracker is lost: %s", message.run, path)
            return
        self._client.log_artifact(self._known(message), str(path), message.to or None)

    def _end(self, message: End) -> None:
        run_id = self._known(message)
        # The registration ends its run itself; a process that dies right after it can't say so here.
        if message.status == "KILLED" and self._client.get_run(run_id).info.status == "FINISHED":
            return
        self._client.set_terminated(run_id, message.status, message.time)

    def _known(self, message: Message) -> str:
        run_id = self._id(message.run)
        if run_id is None:
            raise MlflowException("the run is gone", error_code=RESOURCE_DOES_NOT_EXIST)
        return run_id

    def _id(self, run: str) -> str | None:
        if run not in self._ids:
            found = self._client.search_runs([self._experiment], f"tags.`{FOLLOWED}` = '{run}'", max_results=1)
            if not found:
                return None
            self._ids[run] = str(found[0].info.run_id)
        return self._ids[run]


def _joined(messages: Sequence[Metrics]) -> Metrics:
    return Metrics(run=messages[0].run, points=tuple(point for message in messages for point in message.points))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
