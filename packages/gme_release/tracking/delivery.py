"""Sends the messages of an outbox to MLflow. Each may be sent twice: the second time changes nothing.

Runs are looked up by a tag before they are created, times come with the message, and MLflow keeps one of two equal
points of a metric. A message that MLflow will never take (its run was deleted, say) is logged and skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from gme_data.batching import batched
from gme_release.errors import one_line
from gme_release.tracking.batches import MAX_METRICS, MAX_PARAMS
from gme_release.tracking.messages import Message, MetricPoints, RunArtifact, RunEnd, RunStart, RunTags
from gme_release.tracking.tags import FOLLOWED

_PARENT = "mlflow.parentRunId"
_PERMANENT_ERRORS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
"""Error codes of MLflow that another attempt would get again."""
_LOGGER = logging.getLogger(__name__)


class Delivery:
    """Sends the messages about one pipeline run and its steps to MLflow.

    Args:
        client: A client whose tracker answers.
        experiment_id: The experiment of new runs.
        folder: Folder of the outbox; paths in messages are relative to it.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, folder: Path) -> None:
        self._client, self._experiment, self._folder = client, experiment_id, folder
        self._run_ids: dict[str, str] = {}

    def send(self, messages: Iterable[Message]) -> None:
        """Sends messages in order; consecutive points of one run go together.

        Raises:
            MlflowException: The tracker does not answer. How many messages it took is unknown, so send all again.
        """
        for _, group in groupby(messages, key=lambda message: (message.kind, message.run)):
            consecutive = list(group)
            metrics = [message for message in consecutive if isinstance(message, MetricPoints)]
            if metrics:  # in one call instead of one for each message
                points = tuple(point for message in metrics for point in message.points)
                self._send_message(MetricPoints(run=metrics[0].run, points=points))
                continue
            for message in consecutive:
                self._send_message(message)

    def _send_message(self, message: Message) -> None:
        try:
            match message:
                case RunStart():
                    self._send_start(message)
                case MetricPoints():
                    points = [Metric(name, value, time, step) for name, value, time, step in message.points]
                    for batch in batched(points, MAX_METRICS):
                        self._client.log_batch(self._require_run_id(message), metrics=batch)
                case RunTags():
                    tags = [RunTag(name, value) for name, value in message.tags.items()]
                    self._client.log_batch(self._require_run_id(message), tags=tags)
                case RunArtifact():
                    self._send_artifact(message)
                case RunEnd():
                    self._send_end(message)
        except MlflowException as error:
            if error.error_code not in _PERMANENT_ERRORS:
                raise
            _LOGGER.warning("MLflow does not take a message about %s: %s", message.run, one_line(error))

    def _send_start(self, message: RunStart) -> None:
        run_id = self._find_run_id(message.run) or self._create_run(message)
        self._client.update_run(run_id, status="RUNNING")  # the run of a killed process goes on in another process
        for params in batched(message.params.items(), MAX_PARAMS):
            self._client.log_batch(run_id, params=[Param(name, value) for name, value in params])

    def _create_run(self, message: RunStart) -> str:
        tags = {**message.tags, FOLLOWED: message.run}
        parent, slash, _ = message.run.partition("/")
        if slash and (parent_id := self._find_run_id(parent)):
            tags[_PARENT] = parent_id
        run = self._client.create_run(self._experiment, start_time=message.time, run_name=message.name, tags=tags)
        self._run_ids[message.run] = str(run.info.run_id)
        return self._run_ids[message.run]

    def _send_artifact(self, message: RunArtifact) -> None:
        path = self._folder / message.path
        if not path.is_file():
            _LOGGER.warning("A file of %s for the tracker is lost: %s", message.run, path)
            return
        self._client.log_artifact(self._require_run_id(message), str(path), message.to or None)

    def _send_end(self, message: RunEnd) -> None:
        run_id = self._require_run_id(message)
        # The registration ends its run itself. A process that is killed right after that leaves a message in the outbox
        # which says KILLED: it must not overwrite FINISHED.
        if message.status == "KILLED" and self._client.get_run(run_id).info.status == "FINISHED":
            return
        self._client.set_terminated(run_id, message.status, message.time)

    def _require_run_id(self, message: Message) -> str:
        run_id = self._find_run_id(message.run)
        if run_id is None:
            raise MlflowException("the run is gone", error_code=RESOURCE_DOES_NOT_EXIST)
        return run_id

    def _find_run_id(self, run: str) -> str | None:
        if run not in self._run_ids:
            runs = self._client.search_runs([self._experiment], f"tags.`{FOLLOWED}` = '{run}'", max_results=1)
            if not runs:
                return None
            self._run_ids[run] = str(runs[0].info.run_id)
        return self._run_ids[run]
