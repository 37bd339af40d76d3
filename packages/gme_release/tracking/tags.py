"""Names of the tags that our runs and versions carry in MLflow."""

from __future__ import annotations

import socket
from pathlib import Path

WORKSPACE = "gme.workspace"
"""Tag of every run: machine and folder of its workspace. Runs with another workspace's tag are ignored."""
FLOW_RUN = "gme.prefect.flow_run_"
"""Prefix of the tags that name the orchestrator's run: its ``id`` and, where it has a page, its ``url``."""
FOLLOWED = "gme.followed"
"""Tag of a run that was opened before the work; its value is unique."""
LOST = "gme.lost_messages"
"""Tag of a run whose outbox lost messages: how many."""
RECORD = "gme.record"
"""Tag of a run that was recorded: its `gme_release.run_facts.record_key`."""
MODEL_DIGEST = "gme.model_digest"
"""Tag of a run, a logged model and a version: content digest of the model."""
BYTES = "gme.dvc."
"""Prefix of the tags that name, for each tracked folder, DVC's name of its content."""


def workspace_tag(workspace: Path) -> str:
    """Returns machine and folder, without the quote that would end the text in a search of MLflow."""
    return f"{socket.gethostname()}:{workspace.resolve()}".replace("'", "")
