"""The one reader of structured data: JSON, JSON lines and YAML from disk, network or a model, into typed records.

Strict about what readers commonly guess: the encoding (UTF-8, no lone surrogates), numbers (no NaN, no infinity, whole
numbers of 64 bits), keys (none twice in YAML), size, depth, aliases, and that a file is a regular one, since a FIFO
would wait for ever. Knows no schema; a record's own type says what fits.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from gme_data.errors import FoundryError

T = TypeVar("T")

MAX_BYTES: Final = 64 * 2**20
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 64
"""The most aliases in one YAML file; nine lines of nine aliases each would stand for a billion nodes."""
_MAX_NODES: Final = 100_000
"""The most nodes of a YAML file with its aliases expanded, if its text is shorter than that."""
MAX_INTEGER: Final = 2**63
_SHOWN_PROBLEMS: Final = 5


class StructureError(FoundryError):
    """Data that can't be read as what it should be.

    Attributes:
        reason: What is wrong, without the place; for those who count reasons.
    """

    def __init__(self, where: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {reason}", hint=hint)
        self.where, self.reason = where, reason

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _rebuild, (self.where, self.reason, self.hint)


def _rebuild(where: str, reason: str, hint: str | None) -> StructureError:
    return StructureError(where, reason, hint=hint)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was skipped: its number, from 1, and what is wrong with it."""

    number: int
    reason: str


def read_json(
    path: Path, kind: type[T], *, max_bytes: int = MAX_BYTES, max_integer: int = MAX_INTEGER, hint: str | None = None
) -> T:
    """Returns a JSON file as `kind`: a pydantic model, dataclass, TypedDict or a type such as ``dict[str, float]``.

    Args:
        path: A regular file.
        kind: What it is validated as, strictly: a text is no number.
        max_bytes: A larger file is refused.
        max_integer: Whole numbers lie below it, and not below its negative. Some libraries write 10**30 for no limit.
        hint: What to do about a file that can't be read.

    Raises:
        StructureError: It can't be read, is not strict JSON or does not fit `kind`; names the file and the place in it.
        FileNotFoundError: There is no such file.
    """
    data = read_regular(path, max_bytes, hint=hint)
    return parse_json(data, kind, where=str(path), max_bytes=max_bytes, max_integer=max_integer, hint=hint)


def parse_json(
    data: bytes | str,
    kind: type[T],
    *,
    where: str,
    max_bytes: int = MAX_BYTES,
    max_integer: int = MAX_INTEGER,
    hint: str | None = None,
) -> T:
    """Returns JSON in memory as `kind`; see `read_json`.

    Raises:
        StructureError: See `read_json`; `where` is what it calls the data.
    """
    raw = _encoded(data, where, hint)
    # Checked as a plain value first, since a type such as `dict[str, Any]` bounds neither integers nor depth.
    load_json(raw, where=where, max_bytes=max_bytes, max_integer=max_integer, hint=hint)
    return _validate(raw, kind, where, hint)


def load_json(
    data: bytes | str,
    *,
    where: str,
    max_bytes: int = MAX_BYTES,
    max_integer: int = MAX_INTEGER,
    hint: str | None = None,
) -> Any:  # noqa: ANN401 - any JSON value
    """Returns the value of a JSON text, not validated further.

    Raises:
        StructureError: It is not strict JSON; `where` is what it calls the data.
    """
    raw = _encoded(data, where, hint)
    if len(raw) > max_bytes:
        raise StructureError(where, f"{len(raw)} bytes, at most {max_bytes} are read", hint=hint)
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise StructureError(where, f"not valid JSON: {error}", hint=hint) from error
    _check_value(value, where, hint, max_integer)
    return value


def read_yaml(path: Path, kind: type[T], *, max_bytes: int = MAX_BYTES, hint: str | None = None) -> T:
    """Returns a YAML file as `kind`; see `read_json`.

    Raises:
        StructureError: See `read_json`; also for a key given twice and for more aliases than a person writes.
        FileNotFoundError: There is no such file.
    """
    value = parse_yaml(read_regular(path, max_bytes, hint=hint), where=str(path), hint=hint)
    # As JSON, since pydantic's strict mode takes a list for a tuple, or a text for a date, only from there.
    return _validate(to_json(value), kind, str(path), hint)


def parse_yaml(data: bytes | str, *, where: str, max_bytes: int = MAX_BYTES, hint: str | None = None) -> Any:  # noqa: ANN401 - any YAML value
    """Returns the value of one YAML document, not validated further.

    Raises:
        StructureError: See `read_yaml`.
    """
    if len(data) > max_bytes:
        raise StructureError(where, f"{len(data)} bytes, at most {max_bytes} are read", hint=hint)
    try:
        text = data.decode() if isinstance(data, bytes) else data
        _check_events(text, where, hint)
        # The loader is safe: it extends SafeLoader and constructs nothing more.
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506
    except UnicodeDecodeError as error:
        raise StructureError(where, f"not UTF-8: {error.reason} at byte {error.start}", hint=hint) from error
    # A number of thousands of digits, a date of month 13 and ``!!int ""`` are errors of Python, not of the parser.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise StructureError(where, f"not valid YAML: {error}", hint=hint) from error
    _check_value(value, where, hint)
    return value


def read_json_lines(path: Path, kind: type[T], bad: list[BadLine] | None = None) -> Iterator[T]:
    """Yields the records of a file of JSON lines; a torn or damaged line, anywhere, is skipped.

    Args:
        path: A regular file; a missing one has no records.
        kind: What each line is validated as.
        bad: Gets the lines that were skipped.

    Raises:
        StructureError: It is no regular file.
    """
    try:
        handle = open_regular(path)
    except FileNotFoundError:
        return
    with os.fdopen(handle, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield parse_json(line, kind, where=f"{path}, line {number}")
            except StructureError as error:
                if bad is not None:
                    bad.append(BadLine(number, error.reason))


def read_regular(path: Path, max_bytes: int = MAX_BYTES, *, hint: str | None = None) -> bytes:
    """Returns the bytes of a regular file.

    Raises:
        StructureError: It is a folder, FIFO or device, is larger than `max_bytes`, or can't be read.
        FileNotFoundError: There is no such file.
    """
    try:
        with os.fdopen(open_regular(path, hint=hint), "rb") as handle:
            # The size is bounded by that of the file, since `read` allocates its whole buffer first.
            data = handle.read(min(os.fstat(handle.fileno()).st_size, max_bytes) + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StructureError(str(path), f"can't be read: {error.strerror}", hint=hint) from error
    if len(data) > max_bytes:
        raise StructureError(str(path), f"more than {max_bytes} bytes, which is all that is read", hint=hint)
    return data


def open_regular(path: Path, *, hint: str | None = None) -> int:
    """Opens a regular file for reading; it is checked when it is open, so that no other can take its place.

    Raises:
        StructureError: It is a folder, FIFO or device, or can't be opened.
        FileNotFoundError: There is no such file.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StructureError(str(path), f"can't be read: {reason}", hint=hint) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StructureError(str(path), "no regular file", hint=hint)
    return descriptor


def _encoded(data: bytes | str, where: str, hint: str | None) -> bytes:
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise StructureError(where, f"a lone surrogate at character {error.start}", hint=hint) from error


def _validate(raw: bytes, kind: type[T], where: str, hint: str | None) -> T:
    adapter: TypeAdapter[T] = _adapter(cast("Hashable", kind))
    try:
        return adapter.validate_json(raw, strict=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc'])) or 'the whole'}: {detail['msg']}" for detail in error.errors()]
        more = f" ... and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise StructureError(where, "; ".join(problems[:_SHOWN_PROBLEMS]) + more, hint=hint) from error


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - types have no common type
    return TypeAdapter(kind)


def _check_value(value: object, where: str, hint: str | None, max_integer: int = MAX_INTEGER) -> None:
    """Refuses numbers that JSON has not, texts that UTF-8 can't hold, and depth; shared nodes are checked once."""
    seen: set[int] = set()
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        node, depth = pending.pop()
        if isinstance(node, dict | list):
            if id(node) in seen:
                continue
            seen.add(id(node))
            if depth >= MAX_DEPTH:
                raise StructureError(where, f"nested more than {MAX_DEPTH} deep", hint=hint)
            members = (part for pair in node.items() for part in pair) if isinstance(node, dict) else node
            pending.extend((member, depth + 1) for member in members)
        else:
            reason = _scalar_problem(node, max_integer)
            if reason:
                raise StructureError(where, reason, hint=hint)


def _scalar_problem(node: object, max_integer: int) -> str | None:
    if isinstance(node, bytes | set | tuple):
        return f"a value of the kind {type(node).__name__}, which JSON has not"
    if isinstance(node, float) and not math.isfinite(node):
        return f"the number {node}, which is not finite"
    if isinstance(node, int) and not -max_integer <= node < max_integer:
        return "a whole number beyond 64 bits" if max_integer == MAX_INTEGER else f"a whole number beyond {max_integer}"
    if isinstance(node, str) and not node.isascii():
        try:
            node.encode()
        except UnicodeEncodeError:
            return "a lone surrogate in a text"
    return None


@dataclass(slots=True)
class _Node:
    """A YAML node under construction: how many nodes it has with all aliases expanded, and how deep it is."""

    anchor: str | None
    size: int = 1
    height: int = 0

    def add_child(self, size: int, height: int) -> None:
        """Counts a node below this one."""
        self.size += size
        self.height = max(self.height, height + 1)


def _check_events(text: str, where: str, hint: str | None) -> None:
    """Bounds depth, aliases and expanded nodes before anything is built of them."""
    anchored: dict[str | None, _Node] = {}
    open_nodes, aliases = [_Node(None)], 0
    for event in yaml.parse(text, Loader=_PARSER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Node(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = open_nodes.pop()
            anchored[done.anchor] = done
            open_nodes[-1].add_child(done.size, done.height)
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if any(node.anchor == event.anchor for node in open_nodes):
                raise StructureError(where, f"the alias *{event.anchor} inside of what it stands for", hint=hint)
            target = anchored.get(event.anchor, _Node(None))
            open_nodes[-1].add_child(target.size, target.height)
        elif isinstance(event, yaml.ScalarEvent):
            anchored[event.anchor] = _Node(event.anchor)
            open_nodes[-1].add_child(1, 0)
        if len(open_nodes) + open_nodes[-1].height - 2 > MAX_DEPTH:
            raise StructureError(where, f"nested more than {MAX_DEPTH} deep", hint=hint)
        # Without aliases a text has no more nodes than characters.
        if aliases > MAX_ALIASES or open_nodes[-1].size > max(len(text), _MAX_NODES):
            raise StructureError(where, f"more than {MAX_ALIASES} aliases, or millions of nodes by them", hint=hint)


_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_PARSER):  # type: ignore[misc] # whichever of the two there is
    """A safe loader that refuses a key given twice, of which YAML's own would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
