"""The door of items: a text stands whole in the prompt, a container gives its members, all else is refused."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fuzz.harness import fuzzed
from fuzz.mutator import mutated
from fuzz.values import JSON_VALUES, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_embedder.processing.batch import TokenisedItem
from gme_embedder.processing.containers import is_single, items_of
from gme_embedder.processing.prepare import Preparer


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (70, 50), colour).save(buffer, "PNG")
    return buffer.getvalue()


NO_TOKEN = frozenset(b"\x04\x06\x13\x14\x16\x1d\xf1\xf2\xf3\xf4")
"""Bytes for which SmolLM's vocabulary, unlike Qwen's, has no token: some controls, and the first of planes 4 to 16."""
PICTURES = st.sampled_from([png("red"), png("blue")])
DAMAGED = st.builds(lambda data, seed: mutated(data, random.Random(seed)), PICTURES, st.integers(0, 2**32))
IMAGES = PICTURES | DAMAGED | st.sampled_from([Image.new("L", (9, 9)), Image.new("P", (1, 1)), "nowhere.png"])
DICTS = st.fixed_dictionaries({}, optional={"text": TEXTS, "title": TEXTS, "image": IMAGES})
ODD = st.fixed_dictionaries({}, optional={"text": JSON_VALUES, "image": JSON_VALUES, "txt": TEXTS})
ITEMS = TEXTS | DICTS | ODD | JSON_VALUES | IMAGES | st.builds(Item, TEXTS) | st.binary(max_size=9)


def tokenised(preparer: Preparer, item: Any) -> TokenisedItem | None:
    """The item as the model gets it; None if it is refused."""
    try:
        (ready,) = preparer.tokenise([item])
    except FoundryError as error:
        assert str(error).startswith(("Item 0: ", "Expected", "Several")), error
        return None
    return ready


@fuzzed()
@given(item=ITEMS)
@pytest.mark.hardening("fuzz", "Z3", "items")
def test_a_text_stands_in_the_prompt_as_it_was_given(preparer: Preparer, item: Any) -> None:
    ready = tokenised(preparer, item)
    if ready is None:
        return
    text = item if isinstance(item, str) else item.get("text") if isinstance(item, dict) else getattr(item, "text", "")
    if isinstance(item, dict) and isinstance(item.get("title"), str) and isinstance(text, str):
        text = text.strip()  # title and text are joined as mteb joins them, and stripped together
    pictured = ready.pixels is not None
    assert pictured == (isinstance(item, Image.Image | bytes) or (isinstance(item, dict) and bool(item.get("image"))))
    if len(ready.ids) < preparer.config.max_tokens and isinstance(text, str) and not NO_TOKEN & set(text.encode()):
        prompt = preparer.tokenizer.decode(ready.ids.tolist(), skip_special_tokens=False)
        # A control token in a text is written with a space in it, so that it is text.
        assert text.replace(" ", "") in prompt.replace(" ", "")


@fuzzed()
@given(
    texts=st.lists(TEXTS, max_size=4), kind=st.sampled_from(["list", "tuple", "iterator", "array", "series", "frame"])
)
@pytest.mark.hardening("fuzz", "Z3", "items")
def test_a_container_gives_its_members(texts: list[str], kind: str) -> None:
    containers: dict[str, Any] = {
        "list": texts,
        "tuple": tuple(texts),
        "iterator": iter(texts),
        "array": np.array(texts, object),
        "series": pd.Series(texts, dtype=object),
        "frame": pd.DataFrame({"id": range(len(texts)), "text": pd.Series(texts, dtype=object)}),
    }
    container = containers[kind]
    assert not is_single(container)
    members = list(items_of(container))
    assert [member["text"] if isinstance(member, dict) else member for member in members] == texts


@fuzzed()
@given(value=JSON_VALUES)
@pytest.mark.hardening("fuzz", "Z3", "items")
def test_any_value_is_one_item_or_several_or_refused(preparer: Preparer, value: Any) -> None:
    if is_single(value):
        tokenised(preparer, value)
        return
    try:
        members = list(items_of(value))
    except FoundryError:
        return
    assert members == value
    for member in members:
        tokenised(preparer, member)
