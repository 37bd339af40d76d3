"""Damage to bytes, as disks, networks, editors and careless programs do it. What it does is decided by its `Random`."""

from __future__ import annotations

import random
from collections.abc import Callable

TOKENS = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\\ud83d", b'"', b"\\", b"\n",
    b"\r", b"\t", b",", b"{", b"}", b"[", b"]", b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 5000, b"true",
    b"<|image_pad|>", b"<|im_end|>", b'{"a":' * 300, b"\xe2\x80\xa8", b"\x1f\x8b", b"PAR1", b"IHDR", b"data:,",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, changes: int = 3) -> bytes:
    """A damaged copy of `data`: one to `changes` places are cut, doubled, overwritten or filled with a token."""
    for _ in range(rng.randint(1, changes)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 256)))
        data = data[:start] + rng.choice(_CHANGES)(data[start:end], rng) + data[end:]
    return data


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda _part, _rng: b"",
    lambda part, _rng: part + part,
    lambda part, rng: rng.randbytes(len(part)),
    lambda part, rng: rng.choice(TOKENS) + part,
    lambda _part, rng: rng.choice(TOKENS),
    lambda part, rng: bytes(byte ^ (1 << rng.randrange(8)) for byte in part[:1]) + part[1:],
    lambda part, _rng: part[::-1],
)
