"""How many inputs each door is tried with, which ones, and how they are counted.

500 to a property in every run; `make hardening` takes 3,800, and 38,000 with ``ALL=1``: 200,000 and 2,000,000 inputs
over all doors, most of them to those that cost least. They are always the same ones, unless ``HARDENING_SEED`` chooses
others. To try a door harder: ``FUZZ_EXAMPLES=200000 pytest tests/fuzz``.
"""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from fuzz.mutator import mutated, with_other_value
from hypothesis import HealthCheck, settings

from gme_data.errors import FoundryError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
SEED = int(os.environ.get("HARDENING_SEED", "0"))
_MOST_EXAMPLES = 8000
"""Of a property: what hypothesis makes costs milliseconds each, and comes to little that is new after thousands."""
_SHOWN_BYTES = 4000
tried: Counter[str] = Counter()
"""Inputs that a test had, by its id: `hardening.plugin` puts them on record."""


def count(inputs: int = 1) -> None:
    """Note that the test that runs had so many inputs more."""
    tried[os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]] += inputs


def fuzzed(inputs: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A property that holds for `EXAMPLES` inputs that hypothesis makes, or 8,000; write it above `given`.

    A failure prints the smallest input that shows it.

    Args:
        inputs: At least so many are in one example, where many cost as much as one.
    """

    def wrapped(test: Any) -> Any:
        property_ = test.hypothesis.inner_test

        @functools.wraps(property_)
        def counted(*args: object, **kwargs: object) -> object:
            count(inputs)
            return property_(*args, **kwargs)

        test.hypothesis.inner_test = counted
        chosen = settings(
            max_examples=max(1, min(EXAMPLES, _MOST_EXAMPLES) // inputs),
            database=None,
            deadline=None,
            suppress_health_check=[
                HealthCheck.function_scoped_fixture,
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
            ],
        )
        return hypothesis.seed(SEED)(chosen(test))

    return wrapped


def try_damaged(
    whole: bytes,
    door: Callable[[bytes], object],
    *,
    share: float = 1,
    tokens: tuple[bytes, ...] = (),
    fields: bool = False,
) -> int:
    """Give a door damaged copies of what it takes; it may take or refuse each, with a `FoundryError`.

    Args:
        whole: What it takes, and is shown to take.
        door: Raises whatever else is wrong with it. An input that does so is told with the error.
        share: Of `EXAMPLES`: more for what costs little, less for what costs much.
        tokens: Pieces that this door may stumble over, beside those of all.
        fields: It is JSON or YAML: every second input is still that, with another value in one of the fields.

    Returns:
        How many were refused.
    """
    door(whole)
    refused = 0
    for number in range(max(1, round(share * EXAMPLES))):
        rng = random.Random(f"{SEED}-{number}")
        data = with_other_value(whole, rng) if fields and number % 2 else mutated(whole, rng, tokens=tokens)
        count()
        try:
            door(data)
        except FoundryError as refusal:
            assert str(refusal), data
            refused += 1
        except BaseException as error:
            error.add_note(f"input {number} of seed {SEED}, {len(data)} bytes: {data[:_SHOWN_BYTES]!r}")
            raise
    return refused


def try_damaged_file(path: Path, door: Callable[[], object], *, share: float, tokens: tuple[bytes, ...] = ()) -> int:
    """As `try_damaged`, of a file of JSON or YAML in its place, which is as it was in the end."""
    whole = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        door()

    try:
        return try_damaged(whole, read, share=share, tokens=tokens, fields=True)
    finally:
        path.write_bytes(whole)
