"""What the parent tells the ranks: one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gme_data.journal import atomic_write
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
        fields = {
            "config": self.config.model_dump(mode="json"),
            "examples": [str(folder) for folder in self.examples],
            "images": [str(folder) for folder in self.images],
            "start": str(self.start) if self.start else None,
            "staging": str(self.staging),
            "log_dir": str(self.log_dir),
        }
        atomic_write(path, json.dumps(fields).encode())


def read_job(path: Path) -> Job:
    """Inverse of `Job.write`."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Job(
        config=TrainingConfig.model_validate(fields["config"]),
        examples=tuple(Path(folder) for folder in fields["examples"]),
        images=tuple(Path(folder) for folder in fields["images"]),
        start=Path(fields["start"]) if fields["start"] else None,
        staging=Path(fields["staging"]),
        log_dir=Path(fields["log_dir"]),
    )
