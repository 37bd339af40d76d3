"""The messages of an outbox about a run: each is one line of JSON, with a checksum before its content.

The checksum finds what no schema can: a digit that became another one. A line without it is from an older version.
No message holds credentials. Knows neither files nor the tracker.
"""

from __future__ import annotations

import re
import zlib
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, RootModel, StringConstraints

from gme_data.paths import BelowPath
from gme_data.redact import redact
from gme_data.settings import Frozen
from gme_data.structured import StructureError, parse_json

_CHECKSUM: Final = re.compile(rb'\{"check":"([0-9a-f]{8})",')


def _without_secrets(value: object) -> object:
    """Returns a text without credentials, and with ``?`` for what UTF-8 can't encode; other values as they are."""
    return redact(value.encode(errors="replace").decode()) if isinstance(value, str) else value


SafeText = Annotated[str, BeforeValidator(_without_secrets)]
RunName = Annotated[str, StringConstraints(pattern=r"^[^/'\"\x00-\x1f]+(/[^/'\"\x00-\x1f]+)?$")]
"""``<outbox>`` for a pipeline's run, ``<outbox>/<step>-<key>`` for a step's; a search quotes it."""
Milliseconds = Annotated[int, Field(ge=0)]
Offset = Annotated[int, Field(ge=0)]
Point = tuple[str, Annotated[float, Field(allow_inf_nan=False)], Milliseconds, int]
"""``(metric, value, time, step)``"""


class RunStart(Frozen):
    """A run begins, or goes on after its process was killed."""

    kind: Literal["begin"] = "begin"
    run: RunName
    name: SafeText
    tags: dict[str, SafeText]
    params: dict[str, SafeText]
    time: Milliseconds
    key: str = ""
    """`RunDescription.key`; given for a pipeline's run."""
    experiment: SafeText = ""
    """MLflow experiment; given for a pipeline's run."""
    start: Offset | None = None
    """Offset in the step's events, in bytes, at which this run begins; given for a step's run."""


class MetricPoints(Frozen):
    """Points of curves."""

    kind: Literal["metrics"] = "metrics"
    run: RunName
    points: tuple[Point, ...]
    start: Offset | None = None
    """Offset in the step's events from which they were read; None for points that come from no events."""
    offset: Offset | None = None
    """Offset up to which the events were read."""
    step: int | None = None
    """The last training step among the points."""


class RunTags(Frozen):
    """Tags of a run."""

    kind: Literal["tags"] = "tags"
    run: RunName
    tags: dict[str, SafeText]


class RunArtifact(Frozen):
    """A file of a run, copied into the outbox."""

    kind: Literal["file"] = "file"
    run: RunName
    path: BelowPath
    """Path of the copy, relative to the outbox."""
    to: str
    """Folder among the run's artifacts; empty for the top."""


class RunEnd(Frozen):
    """A run is over."""

    kind: Literal["end"] = "end"
    run: RunName
    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: Milliseconds
    offset: Offset | None = None
    """Offset up to which the step's events were read; given for a step's run."""


Message = RunStart | MetricPoints | RunTags | RunArtifact | RunEnd


class _Line(RootModel[Annotated[Message, Field(discriminator="kind")]]):
    """A line, whose ``kind`` says which message it is."""


def encode(message: Message) -> str:
    """Returns the line of a message, without the newline."""
    body = message.model_dump_json(exclude_none=True)
    # The checksum takes the place of the opening brace, so that the line is one JSON object.
    return f'{{"check":"{zlib.crc32(body.encode()):08x}",{body[1:]}'


def decode(line: bytes, where: str) -> Message:
    """Inverts `encode`.

    Args:
        line: The line, without the newline.
        where: Where it comes from; errors name it.

    Raises:
        StructureError: The line is torn or damaged.
    """
    checksum = _CHECKSUM.match(line)
    body = b"{" + line[checksum.end() :] if checksum else line
    if checksum and zlib.crc32(body) != int(checksum[1], 16):
        raise StructureError(where, "its checksum is another")
    return parse_json(body, _Line, where=where).root
