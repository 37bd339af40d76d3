"""The unit of work: some passages, what the steps made of them, and the journal that keeps finished units.

A unit is two files, pictures first and then what says that it is whole, both written by a rename.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from gme_data.images import ImageRecord, write_images
from gme_data.journal import atomic_write
from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.asking import Usage
from gme_synthesis.records import Reject, Tally


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit on its way through the steps.

    Attributes:
        number: Place in the order of the corpus.
        candidates: What is still going on.
        named: What passed the branch after the consistency filter: it can be asked by name, pictures or not.
        rejects: What was refused.
        tallies: Counts, step by step.
        usage: What language models used, by step.
        seconds: Wall time, by step; no part of the output.
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

    def to_json(self) -> dict[str, Any]:
        """All but the bytes of pictures."""
        names = ("number", "candidates", "named", "rejects", "tallies", "usage", "seconds")
        return {name: _plain(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; without pictures."""
        return cls(
            number=value["number"],
            candidates=[Candidate.from_json(row) for row in value["candidates"]],
            named=[Candidate.from_json(row) for row in value["named"]],
            rejects=[Reject(**row) for row in value["rejects"]],
            tallies=[Tally(**row) for row in value["tallies"]],
            usage={step: Usage(**row) for step, row in value["usage"].items()},
            seconds=value["seconds"],
        )


class ShardJournal:
    """Finished shards in a hidden folder of the staging folder; they go when the step is published."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def pictures(self) -> list[Path]:
        """Folders of pictures, in the order of the shards; to be read by an `ImageStore`."""
        return sorted(path for path in self._folder.glob("*.pictures") if self.has(int(path.stem)))

    def has(self, number: int) -> bool:
        """Whether a shard is finished."""
        return self._path(number).exists()

    def put(self, shard: Shard) -> None:
        """Keep a finished shard."""
        if shard.pictures:
            write_images(self._path(shard.number).with_suffix(".pictures"), shard.pictures)
        atomic_write(self._path(shard.number), json.dumps(shard.to_json(), ensure_ascii=False).encode())

    def get(self, number: int) -> Shard:
        """A finished shard, without its pictures."""
        return Shard.from_json(json.loads(self._path(number).read_text(encoding="utf-8")))

    def shards(self) -> Iterator[Shard]:
        """All finished shards in order, one in memory at a time."""
        return (self.get(int(path.stem)) for path in sorted(self._folder.glob("*.json")))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"


def _plain(value: Any) -> Any:  # noqa: ANN401 - dataclasses, and lists and mappings of them
    if isinstance(value, list):
        return [asdict(one) for one in value]
    if isinstance(value, Mapping):
        return {name: asdict(one) if isinstance(one, Usage) else one for name, one in value.items()}
    return value
