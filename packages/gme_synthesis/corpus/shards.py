"""Shards of work: some passages, what the steps made of them, and the journal that keeps finished shards.

A shard is two files, both written by a rename: the pictures first, then the JSON file whose presence says that the
shard is complete. Pictures without that file, left by a kill in between, are not read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from gme_data.images import ImageRecord, write_images
from gme_data.journal import atomic_write, fsync_folder
from gme_data.structured import StructureError, read_json
from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.client import Usage
from gme_synthesis.stages import Reject, Tally

_MAX_BYTES = 2**32
"""A larger JSON file of a shard is taken for damaged."""
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shard:
    """Some passages on their way through the steps.

    Attributes:
        number: Position in the order of the corpus.
        candidates: Candidates that no step has refused.
        named: Candidates refused after the consistency filter: they can be asked by name, if not by a picture.
        rejects: What was refused, in the order of the steps.
        tallies: Counts, step by step.
        usage: Requests and tokens of the writer, by step.
        seconds: Wall time in seconds, by step; no part of the output.
        pictures: New pictures that `candidates` refer to.
    """

    number: int
    candidates: list[Candidate]
    named: list[Candidate] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    pictures: list[ImageRecord] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard on disk: all of `Shard` but the pictures."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    number: int
    candidates: list[Candidate]
    named: list[Candidate]
    rejects: list[Reject]
    tallies: list[Tally]
    usage: dict[str, Usage]
    seconds: dict[str, float]


_SHARD_FILE = TypeAdapter(ShardFile)


class ShardJournal:
    """Finished shards in a hidden folder of the staging folder; they are deleted when the step is published."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pictures(self) -> list[Path]:
        """Folders of the finished shards' pictures, in the order of the shards; to be read by an `ImageStore`."""
        return sorted(path for path in self._folder.glob("*.pictures") if self.has(int(path.stem)))

    def has(self, number: int) -> bool:
        """Returns whether a shard is finished."""
        return self._path(number).exists()

    def put(self, shard: Shard) -> None:
        """Writes a finished shard."""
        if shard.pictures:
            folder = self._path(shard.number).with_suffix(".pictures")
            write_images(folder, shard.pictures)
            fsync_folder(folder)  # on disk before the file that says the shard is complete
        contents = {each.name: getattr(shard, each.name) for each in fields(ShardFile)}
        file = ShardFile(**{**contents, "usage": dict(shard.usage), "seconds": dict(shard.seconds)})
        # Without empty columns: most candidates fill a few of them only.
        atomic_write(self._path(shard.number), _SHARD_FILE.dump_json(file, exclude_defaults=True))

    def get(self, number: int) -> Shard:
        """Reads a finished shard, without its pictures.

        Raises:
            StructureError: Its file is damaged.
        """
        path = self._path(number)
        file = read_json(path, ShardFile, max_bytes=_MAX_BYTES, hint="Run the same command again: it is done anew.")
        return Shard(**{each.name: getattr(file, each.name) for each in fields(ShardFile)})

    def drop_damaged(self) -> None:
        """Deletes the files of damaged shards, so that these shards are done again."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                self.get(int(path.stem))
            except StructureError as error:
                _LOGGER.warning("a finished shard is done again: %s", error)
                path.unlink()

    def shards(self) -> Iterator[Shard]:
        """Yields all finished shards in order, with one in memory at a time."""
        return (self.get(int(path.stem)) for path in sorted(self._folder.glob("*.json")))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"
