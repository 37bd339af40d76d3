"""Every mention of a name is replaced."""

from __future__ import annotations

import pytest

from gme_synthesis.text.names import replace_names, surviving_name


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of Norway?", "What is the capital of the pictured country?"),
        ("What is the capital of the Kingdom of Norway?", "What is the capital of the pictured country?"),
        ("Norway: capital?", "The pictured country: capital?"),
        ("What is norway's capital?", "What is this country's capital?"),
        ("Norway and NORWAY", "The pictured country and the pictured country"),
        ("The Norwayans live where?", "The Norwayans live where?"),
    ],
)
def test_every_mention_is_replaced(question: str, expected: str) -> None:
    names = ("Kingdom of Norway", "Norway")
    assert replace_names(question, names, "the pictured country", before_possessive="this country") == expected


def test_a_short_name_is_no_common_word() -> None:
    assert replace_names("Tell us of US law", ("US",), "this country", before_possessive="x") == (
        "Tell us of this country law"
    )
    assert surviving_name("tell us", ("US",)) is None
    assert surviving_name("tell US", ("US",)) == "US"
