"""Values that cells, items and bodies may hold, good ones and those that people and programs really send."""

from __future__ import annotations

from fuzz.mutator import TOKENS
from hypothesis import strategies as st

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Lone surrogates, NUL and control characters included."""
AWKWARD = st.sampled_from([token.decode("utf-8", "surrogateescape") for token in TOKENS])
WORDS = st.lists(st.sampled_from(["red", "flag", "Zürich", "a\u00addb", "\u200d", "<b>", "&amp;", "😀"])).map(" ".join)
TEXTS = WORDS | ANY_TEXT | AWKWARD
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
