"""What an outbox says of a run, as typed messages: each one line of JSON, with a checksum before its content.

The checksum finds what no schema can: a digit that became another one. A line without it is from an older release.
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

_CHECK: Final = re.compile(rb'\{"check":"([0-9a-f]{8})",')


def _shown(value: object) -> object:
    """A text as the tracker may keep it: without credentials, and with ``?`` for what UTF-8 has not."""
    return redact(value.encode(errors="replace").decode()) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_shown)]
RunName = Annotated[str, StringConstraints(pattern=r"^[^/'\"\x00-\x1f]+(/[^/'\"\x00-\x1f]+)?$")]
"""``<outbox>`` for a pipeline's run, ``<outbox>/<step>-<key>`` for a step's; it stands in quotes in a search."""
Milliseconds = Annotated[int, Field(ge=0)]
Offset = Annotated[int, Field(ge=0)]
Point = tuple[str, Annotated[float, Field(allow_inf_nan=False)], Milliseconds, int]
"""``(metric, value, time, step)``"""


class Begin(Frozen):
    """A run begins, or goes on after its process was killed."""

    kind: Literal["begin"] = "begin"
    run: RunName
    name: Text
    tags: dict[str, Text]
    params: dict[str, Text]
    time: Milliseconds
    key: str = ""
    """Of a pipeline's run: `RunPlan.key`."""
    experiment: Text = ""
    """Of a pipeline's run."""
    start: Offset | None = None
    """Of a step's run: from where on the step's events are its own."""


class Metrics(Frozen):
    """Points of curves."""

    kind: Literal["metrics"] = "metrics"
    run: RunName
    points: tuple[Point, ...]
    start: Offset | None = None
    """From where the events were read for these points; None for what comes from no events."""
    offset: Offset | None = None
    """To where they were read."""
    step: int | None = None
    """The last training step that was told."""


class Tags(Frozen):
    """Something to be said about a run."""

    kind: Literal["tags"] = "tags"
    run: RunName
    tags: dict[str, Text]


class File(Frozen):
    """A file that was kept in the outbox."""

    kind: Literal["file"] = "file"
    run: RunName
    path: BelowPath
    """Relative to the outbox."""
    to: str
    """Folder of the run's artifacts; empty for the top."""


class End(Frozen):
    """A run is over."""

    kind: Literal["end"] = "end"
    run: RunName
    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: Milliseconds
    offset: Offset | None = None
    """Of a step's run: to where its events were read."""


Message = Begin | Metrics | Tags | File | End


class _Line(RootModel[Annotated[Message, Field(discriminator="kind")]]):
    """One line."""


def encode(message: Message) -> str:
    """The line of a message, without its end."""
    body = message.model_dump_json(exclude_none=True)
    return f'{{"check":"{zlib.crc32(body.encode()):08x}",{body[1:]}'


def decode(line: bytes, where: str) -> Message:
    """Inverse of `encode`.

    Raises:
        StructureError: The line is torn or damaged; `where` is what it calls it.
    """
    found = _CHECK.match(line)
    body = b"{" + line[found.end() :] if found else line
    if found and zlib.crc32(body) != int(found[1], 16):
        raise StructureError(where, "its checksum is another")
    return parse_json(body, _Line, where=where).root
