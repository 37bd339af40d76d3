"""Redaction of credentials in every text that is shown or stored.

Redacted are credentials in addresses (``user:password@``, ``token@``, ``?api_key=``, signed addresses), in headers and
in key files, and the values of secret environment variables; rather too much than too little. Knows only the sinks of
Python itself: logs and the tracebacks of uncaught errors.
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
_MIN_SECRET: Final = 6
"""A value of fewer characters is not redacted, since it may be any word of a text."""
_SECRET_VARIABLE: Final = re.compile(
    r"(?:keys?|tokens?|secrets?|passwords?|passwd|passphrase|auth|authorization|credentials?|webhook)(?:_|$)", re.I
)
_LOCATION_VARIABLE: Final = re.compile(r"_(?:SOCK|FILE|PATH|DIR|HOME|ID|NAME|TYPE|MODE|METHOD|PLUGIN)$", re.I)
"""Variables with these endings name a location or a kind, and hold no secret themselves."""
_USER_SHOWN: Final = re.compile(
    r"(?:(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle|rediss?|mongodb|amqps?)(?:\+\w+)?|wasbs?|abfss?)$", re.I
)
"""In addresses of these schemes the user is no secret, since it names the database or the container."""
_FIELD: Final = r"[\w.\-]{0,64}(?:key|token|secret|passw|pwd|sig|auth|credential)[\w.\-]{0,64}"
_RULES: Final = tuple(
    (substring, re.compile(pattern, re.I), replacement)
    for substring, pattern, replacement in (
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
"""A fast test for a substring, the pattern of a credential, and its replacement, for each form of credentials."""
_WORD: Final = re.compile(r"[^\s\"'<>]+")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*$", re.I)
_AUTHORITY_END: Final = re.compile("[/?#]")
_MAX_ADDRESSES: Final = 32
"""In one word at most this many addresses are redacted; what follows them is replaced as a whole."""
_PORT: Final = re.compile(r"\d+[/?#]")


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns `text` with each credential in it replaced by stars; a text without any comes back as it is.

    Args:
        text: Any text.
        environment: The secret variables to redact; those of this process by default.

    >>> redact("no route to https://me:word@host/x?api_key=abc&page=2", {})
    'no route to https://***@host/x?api_key=***&page=2'
    """
    if "://" in text and "@" in text:
        text = _WORD.sub(lambda word: _without_user(word[0]), text)
    lower = text.lower()  # a substring test rules out most texts before a pattern has to run
    for substring, pattern, replacement in _RULES:
        if substring in lower:
            text = pattern.sub(replacement, text)
    # The longest come first, so that a secret that contains another is replaced as a whole.
    for value in secrets_of(os.environ if environment is None else environment):
        text = text.replace(value, STARS)
    return text


def _without_user(word: str) -> str:
    """Returns the addresses in a word without spaces, without user and password."""
    done = ""
    for _ in range(_MAX_ADDRESSES):
        shown, word = _first_address(word)
        done += shown
        if not word:
            return done
    return done + STARS


def _first_address(word: str) -> tuple[str, str]:
    """Returns a word up to the end of the first address' authority, redacted, and the part after it."""
    begin = word.find("://") + 3
    if begin < 3 or "@" not in word[begin:]:
        return word, ""
    scheme = _SCHEME.search(word[: begin - 3])
    user_shown = scheme is not None and _USER_SHOWN.match(scheme[0]) is not None
    user, colon, after_colon = word[begin:].partition(":")
    if colon and not set(user) & {"/", "@"} and not _PORT.match(after_colon) and "@" in after_colon:
        # A password may hold any character, an @ among them, so it is taken to end at the last one.
        shown = f"{user}:{STARS}" if user_shown else STARS
        return f"{word[:begin]}{shown}@{after_colon.rpartition('@')[2]}", ""
    authority = _AUTHORITY_END.split(word[begin:], maxsplit=1)[0]
    tail = word[begin + len(authority) :]
    if "@" in authority and not user_shown:
        authority = f"{STARS}@{authority.rpartition('@')[2]}"
    return word[:begin] + authority, tail


def redacted(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns `texts` with every value redacted."""
    return {name: redact(text) for name, text in texts.items()}


def redact_value(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Returns a JSON-like value with every text in it redacted; names of fields stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redact_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(part) for part in value]
    return value


def has_credentials(address: str) -> bool:
    """Tells whether an address has something in it that `redact` would take out, by its form alone."""
    return redact(address, {}) != address


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the secrets of an environment, longest first: secret variables, and passwords in addresses."""
    return _secrets(tuple(environment.items()))


# Cached by the environment, since every line that is logged asks for its secrets.
@lru_cache(maxsize=8)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    secrets: set[str] = set()
    for name, value in environment:
        if _SECRET_VARIABLE.search(name) and not _LOCATION_VARIABLE.search(name):
            # Several keys in one variable, and a user before a password, are secrets each.
            parts = {value, *re.split(r"[,;\s]+", value), value.partition(":")[2]}
            in_header = base64.b64encode(value.encode(errors="replace")).decode()
            secrets |= parts | {quote(part, safe="") for part in parts} | {in_header}
        elif "@" in value and "://" in value:
            secrets |= _password(value)
    return tuple(
        sorted((value for value in secrets if len(value) >= _MIN_SECRET), key=lambda value: (-len(value), value))
    )


def _password(address: str) -> set[str]:
    try:
        password = urlsplit(address).password or ""
    except ValueError:  # no address after all
        return set()
    return {password, unquote(password)}


def redact_error(error: BaseException) -> BaseException:
    """Redacts an error and all that led to it, in place, before a library shows or stores it; returns it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.args = tuple(redact(part) if isinstance(part, str) else part for part in current.args)
        if notes := getattr(current, "__notes__", None):
            current.__notes__ = [redact(note) for note in notes]
        pending += [current.__cause__, current.__context__]
    return error


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Redacts the errors of a block before they reach a library that stores them, such as Prefect.

    Raises:
        RuntimeError: In place of an error whose text is not made of its arguments and has credentials in it.
    """
    try:
        yield
    except Exception as error:
        redact_error(error)
        if (text := redact(str(error))) != str(error):
            raise RuntimeError(f"{type(error).__name__}: {text}") from None
        raise


def install_redaction() -> None:
    """Redacts what this process logs, through whatever handler, and the tracebacks that it ends with. Idempotent."""
    factory = logging.getLogRecordFactory()
    if isinstance(factory, _RedactingFactory):
        return
    logging.setLogRecordFactory(_RedactingFactory(factory))
    sys.excepthook = _show_uncaught
    threading.excepthook = _show_uncaught_in_thread


class _RedactingFactory:
    """Makes redacted log records. It is no filter, since a logger's filter does not see what its children log."""

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


def _show_uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_type is not SystemExit and hook.exc_value is not None:
        _show_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
