"""The job of a stage: the JSON file from which each rank reads what to train on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from gme_data.journal import atomic_write
from gme_data.structured import read_json
from gme_training.config import TrainingConfig

RESUME = ".resume"
HISTORY = ".history.jsonl"
INDEX = ".index"
TEACHERS = ".teachers"
# Hidden, since hidden files of a staging folder are no part of what is published.


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One stage of training.

    Attributes:
        config: The stage.
        examples: The folders of the example shards.
        images: The folders of the picture shards.
        start: The folder of the model to continue from; None for a fresh or pretrained one.
        staging: The folder in which the model is saved; scratch files go into hidden folders of it.
        log_dir: The folder of events and logs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    config: TrainingConfig
    examples: tuple[Path, ...]
    images: tuple[Path, ...]
    start: Path | None
    staging: Path
    log_dir: Path

    @property
    def is_fresh(self) -> bool:
        """Whether the stage starts from a text-only language model and a randomly initialised vision tower."""
        return not self.start and not self.config.base and not self.config.model.starter

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.staging / RESUME

    @property
    def index(self) -> Path:
        """The folder of the index of the examples."""
        return self.staging / INDEX

    @property
    def teachers(self) -> Path:
        """The folder of the vectors of the frozen teachers."""
        return self.staging / TEACHERS

    @property
    def history(self) -> Path:
        """The file of the events of all steps, which is kept as long as the checkpoints."""
        return self.staging / HISTORY

    @property
    def events(self) -> Path:
        """The file of events for the progress bar and the tracking of the run."""
        return self.log_dir / "events.jsonl"

    def write(self, path: Path) -> None:
        """Writes the job for `read_job`."""
        atomic_write(path, TypeAdapter(TrainingJob).dump_json(self))


def read_job(path: Path) -> TrainingJob:
    """Reads the file that `TrainingJob.write` wrote.

    Raises:
        StructureError: The file is damaged; names it and the field.
    """
    return read_json(path, TrainingJob, hint="Run the same command again: the file is written anew.")
