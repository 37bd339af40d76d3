"""Damage to bytes, as disks, networks, editors and careless programs do it. What it does is decided by its `Random`."""

from __future__ import annotations

import random
from collections.abc import Callable

TOKENS = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\\ud83d", b'"', b"\\", b"\n",
    b"\r", b"\t", b",", b"{", b"}", b"[", b"]", b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 5000, b"true",
    b"<|image_pad|>", b"<|im_end|>", b'{"a":' * 300, b"\xe2\x80\xa8", b"\x1f\x8b", b"PAR1", b"IHDR", b"data:,",
)  # fmt: skip
VALUES = (
    b"null", b"true", b"0", b"-1", b"1.5", b"1e308", b"9223372036854775807", b'""', b'"x"', b'"../x"', b'"\\u0000"',
    b"[]", b"[[]]", b'["x"]', b"[null]", b"{}", b'{"a": 1}', b'"' + b"x" * 300 + b'"',
)  # fmt: skip
"""What a field may hold instead of what belongs there; all of it is good JSON and good YAML."""


def mutated(data: bytes, rng: random.Random, changes: int = 3, tokens: tuple[bytes, ...] = ()) -> bytes:
    """A damaged copy of `data`: one to `changes` places are cut, doubled, overwritten or filled with a token.

    Args:
        data: What is damaged.
        rng: Decides how.
        changes: At most so many places.
        tokens: Beside `TOKENS`.
    """
    for _ in range(rng.randint(1, changes)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 256)))
        data = data[:start] + rng.choice(_CHANGES)(data[start:end], rng, (*TOKENS, *tokens)) + data[end:]
    return data


def with_other_value(data: bytes, rng: random.Random) -> bytes:
    """A copy of a JSON or YAML text in which some field has another value, of another kind perhaps."""
    start = data.find(b":", rng.randrange(len(data)))
    ends = [end for mark in (b",", b"\n", b"}", b"]") if (end := data.find(mark, start + 1)) > 0]
    if start < 0 or not ends:
        return data
    return data[: start + 1] + b" " + rng.choice(VALUES) + data[min(ends) :]


_CHANGES: tuple[Callable[[bytes, random.Random, tuple[bytes, ...]], bytes], ...] = (
    lambda _part, _rng, _tokens: b"",
    lambda part, _rng, _tokens: part + part,
    lambda part, rng, _tokens: rng.randbytes(len(part)),
    lambda part, rng, tokens: rng.choice(tokens) + part,
    lambda _part, rng, tokens: rng.choice(tokens),
    lambda part, rng, _tokens: bytes(byte ^ (1 << rng.randrange(8)) for byte in part[:1]) + part[1:],
    lambda part, _rng, _tokens: part[::-1],
)
