"""One redactor: takes credentials out of a text before anyone else sees it, wherever it is shown or stored.

Credentials in addresses (``user:password@``, ``token@``, ``?api_key=``, signed addresses), in headers and in key files,
and the values of the environment's secret variables. Too much is taken rather than too little. Knows no place where
texts go, but for Python's own: logs and the tracebacks of uncaught errors.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

STARS: Final = "***"
_SHORTEST: Final = 6
"""A value of fewer characters is no secret that could be told from any other word."""
_SECRET_VARIABLE: Final = re.compile(
    r"(?:keys?|tokens?|secrets?|passwords?|passwd|passphrase|auth|authorization|credentials?|webhook)(?:_|$)", re.I
)
_PLACE: Final = re.compile(r"_(?:SOCK|FILE|PATH|DIR|HOME|ID|NAME|TYPE|MODE|METHOD|PLUGIN)$", re.I)
"""Ends of names that say where something is, or what it is called."""
_USER_SHOWN: Final = re.compile(
    r"(?:(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle|rediss?|mongodb|amqps?)(?:\+\w+)?|wasbs?|abfss?)$", re.I
)
"""Schemes whose user is no secret: he says which database, or which container, is meant."""
_FIELD: Final = r"[\w.\-]{0,64}(?:key|token|secret|passw|pwd|sig|auth|credential)[\w.\-]{0,64}"
_RULES: Final = tuple(
    (sign, re.compile(pattern, re.I), replacement)
    for sign, pattern, replacement in (
        ("=", rf"([?&;]{_FIELD}=)[^\s&;\"'<>#]+", rf"\1{STARS}"),
        (
            "=",
            r"(\b(?:password|passwd|pwd|token|secret|api_?key)=)(?:'[^']*'|\"[^\"]*\"|[^\s&;,)\"'<>]+)",
            rf"\1{STARS}",
        ),
        (
            "authorization",
            r"(\bauthorization\b[\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer|digest|token)\s+)?[^\s\"',]{8,}",
            rf"\1{STARS}",
        ),
        ("bearer", r"(\bbearer\s+)[\w.~+/=\-]{8,}", rf"\1{STARS}"),
        ("private key", r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(-----END|\Z)", rf"\1{STARS}\2"),
    )
)
"""What a text must hold to be looked through, what is looked for, and what comes in its place."""
_WORD: Final = re.compile(r"[^\s\"'<>]+")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*$", re.I)
_AUTHORITY_END: Final = re.compile("[/?#]")
_MOST_ADDRESSES: Final = 32
"""In one word; what follows them is not looked at, and not shown."""
_PORT: Final = re.compile(r"\d+[/?#]")


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with each credential in it starred out; what has none comes back as it is.

    Args:
        text: Any text.
        environment: Whose secret variables are looked for; this process' own if None.

    >>> redact("no route to https://me:word@host/x?api_key=abc&page=2", {})
    'no route to https://***@host/x?api_key=***&page=2'
    """
    if "://" in text and "@" in text:
        text = _WORD.sub(lambda word: _without_user(word[0]), text)
    lower = text.lower()
    for sign, pattern, replacement in _RULES:
        if sign in lower:
            text = pattern.sub(replacement, text)
    for value in secrets_of(os.environ if environment is None else environment):
        text = text.replace(value, STARS)
    return text


def _without_user(word: str) -> str:
    """The addresses in a word without spaces, without user and password."""
    done = ""
    for _ in range(_MOST_ADDRESSES):
        shown, word = _first_address(word)
        done += shown
        if not word:
            return done
    return done + STARS


def _first_address(word: str) -> tuple[str, str]:
    """Up to the end of the authority of the first address, what is left."""
    begin = word.find("://") + 3
    if begin < 3 or "@" not in word[begin:]:
        return word, ""
    scheme = _SCHEME.search(word[: begin - 3])
    user_shown = scheme is not None and _USER_SHOWN.match(scheme[0]) is not None
    user, colon, rest = word[begin:].partition(":")
    if colon and not set(user) & {"/", "@"} and not _PORT.match(rest) and "@" in rest:
        # A password may have any sign in it, so it goes up to the last @.
        shown = f"{user}:{STARS}" if user_shown else STARS
        return f"{word[:begin]}{shown}@{rest.rpartition('@')[2]}", ""
    authority = _AUTHORITY_END.split(word[begin:], maxsplit=1)[0]
    tail = word[begin + len(authority) :]
    if "@" in authority and not user_shown:
        authority = f"{STARS}@{authority.rpartition('@')[2]}"
    return word[:begin] + authority, tail


def redacted(texts: Mapping[str, str]) -> dict[str, str]:
    """`redact` of every value."""
    return {name: redact(text) for name, text in texts.items()}


def redact_value(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """`redact` of every text in a JSON-like value; names of fields stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redact_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(part) for part in value]
    return value


def has_credentials(address: str) -> bool:
    """Whether an address has something in it that `redact` would take out, by its form alone."""
    return redact(address, {}) != address


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What must not be shown of an environment: secret variables, passwords in addresses; the longest first."""
    return _secrets(tuple(environment.items()))


@lru_cache(maxsize=8)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found: set[str] = set()
    for name, value in environment:
        if _SECRET_VARIABLE.search(name) and not _PLACE.search(name):
            # Several keys in one variable, and a user before a password, are secrets each.
            parts = {value, *re.split(r"[,;\s]+", value), value.partition(":")[2]}
            found |= parts | {quote(part, safe="") for part in parts} | {_in_header(value)}
        elif "@" in value and "://" in value:
            found |= _password(value)
    return tuple(sorted((value for value in found if len(value) >= _SHORTEST), key=lambda value: (-len(value), value)))


def _in_header(value: str) -> str:
    return base64.b64encode(value.encode(errors="replace")).decode()


def _password(address: str) -> set[str]:
    try:
        password = urlsplit(address).password or ""
    except ValueError:  # no address after all
        return set()
    return {password, unquote(password)}


def redact_error(error: BaseException) -> BaseException:
    """Take credentials out of an error and all that led to it, in place, before somebody else tells it; returns it."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(redact(part) if isinstance(part, str) else part for part in one.args)
        if notes := getattr(one, "__notes__", None):
            one.__notes__ = [redact(note) for note in notes]
        todo += [one.__cause__, one.__context__]
    return error


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Take credentials out of the errors of a block, before they reach somebody who keeps what he is told, as Prefect.

    Raises:
        RuntimeError: In place of an error that has its text from elsewhere than its arguments, and credentials in it.
    """
    try:
        yield
    except Exception as error:
        redact_error(error)
        if (text := redact(str(error))) != str(error):
            raise RuntimeError(f"{type(error).__name__}: {text}") from None
        raise


def install() -> None:
    """Redact what this process logs, through whatever handler, and the tracebacks that it ends with. Idempotent."""
    factory = logging.getLogRecordFactory()
    if isinstance(factory, _RedactingFactory):
        return
    logging.setLogRecordFactory(_RedactingFactory(factory))
    sys.excepthook = _show_uncaught
    threading.excepthook = _show_uncaught_in_thread


class _RedactingFactory:
    """Makes log records without credentials. A filter at a logger would not see what its children log."""

    def __init__(self, make: Any) -> None:  # noqa: ANN401 - any callable that makes a record
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401 - as logging calls it
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that don't fit: logging itself says so
            return record
        if redact(message) != message:
            record.msg, record.args = redact(message), ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if redact(text) != text:
                record.exc_text = redact(text)  # formatters take it instead of making one
        return record


def _show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _show_uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is not SystemExit and found.exc_value is not None:
        _show_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
