"""Progress of a long job with its remaining time: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Never, Self, TypeVar

from tqdm import tqdm

from gme_data.redact import redact

_LINE_EVERY_SECONDS = 5.0
_listeners: list[Callable[[str], None]] = []
T = TypeVar("T")


def listen(listener: Callable[[str], None]) -> None:
    """Has `listener` called with every progress line of this process, also where a terminal shows a bar instead."""
    _listeners.append(listener)


class Progress:
    """Counts units of one job. Use as a context manager; writes to standard error only.

    Args:
        label: What is being done, e.g. ``encode passages``.
        total: Number of units; None where it is not known before the end, as of the rows of a text file.
        unit: What a unit is.
        done: Units that were finished before (by an interrupted run); they do not count for the speed.
    """

    def __init__(self, label: str, total: int | None, unit: str = "items", done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = self._before = done
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm[Never] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=label, unit=f" {unit}", leave=True, dynamic_ncols=True)

    @property
    def done(self) -> int:
        """Units counted so far."""
        return self._done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            self._line()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Counts `units` more; `note` is shown beside (e.g. the loss)."""
        self._done += units
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
        # Lines are written beside a bar too, for the listeners; `_write` keeps them off the terminal.
        if time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._line(note)

    def _line(self, note: str = "") -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._started
        counted = self._done - self._before
        speed = f", {counted / elapsed:,.1f} {self._unit}/s" if counted > 0 and elapsed >= 1 else ""
        remaining = (
            f", about {(self._total - self._done) * elapsed / counted:.0f} s left"
            if self._total is not None and counted > 0 and self._done < self._total
            else ""
        )
        tail = f" · {note}" if note else ""
        count = f"{self._done}{'' if self._total is None else f'/{self._total}'} {self._unit}"
        _write(f"{self._label}: {count} in {elapsed:.0f} s{speed}{remaining}{tail}", shown=self._bar is None)


def tell(label: str, text: str) -> None:
    """Writes a line about the job `label` to standard error, where its progress is shown too."""
    _write(redact(f"{label}: {text}"))


def _write(line: str, *, shown: bool = True) -> None:
    if shown:
        sys.stderr.write(f"  {line}\n")
        sys.stderr.flush()
    for listener in _listeners:
        listener(line)


def track(items: Iterable[T], label: str, total: int, unit: str = "items") -> Iterator[T]:
    """Yields `items` and shows how many of them are consumed."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
