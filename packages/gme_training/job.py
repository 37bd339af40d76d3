"""What the parent tells the ranks: one JSON file."""

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


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of training.

    Attributes:
        config: The stage.
        examples: Folders of the example shards.
        images: Folders of the picture shards.
        start: Folder of the model to go on from; None for a fresh one.
        staging: Where the model is saved; scratch files go into hidden folders of it.
        log_dir: Where events and logs go.
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
        """Whether the stage starts from language layers that never saw a picture and a tower drawn at random."""
        return not self.start and not self.config.base and not self.config.model.starter

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints for resuming."""
        return self.staging / RESUME

    @property
    def index(self) -> Path:
        """Folder of the index of the examples."""
        return self.staging / INDEX

    @property
    def teachers(self) -> Path:
        """Folder of the vectors of frozen teachers."""
        return self.staging / TEACHERS

    @property
    def history(self) -> Path:
        """Events of the steps, kept as long as the checkpoints."""
        return self.staging / HISTORY

    @property
    def events(self) -> Path:
        """Events for whoever follows the run."""
        return self.log_dir / "events.jsonl"

    def write(self, path: Path) -> None:
        """Write the job for `read_job`."""
        atomic_write(path, TypeAdapter(Job).dump_json(self))


def read_job(path: Path) -> Job:
    """Inverse of `Job.write`.

    Raises:
        StructureError: The file is damaged; names it and the field.
    """
    return read_json(path, Job, hint="Run the same command again: the file is written anew.")
