"""One item is one vector, a container of items has a row each; nothing else is taken for either."""

from __future__ import annotations

import io
from collections import UserDict, deque

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.frozen import MiniLM
from gme_embedder.processing.containers import as_list, items_of
from gme_embedder.vectors.store import EmbeddingStore

TEXTS = ["a red flag", "the capital of Peru", "42 rivers"]


@pytest.fixture(scope="module")
def small():
    return Embedder.fresh(ModelConfig(text_layers=1), seed=1)


@pytest.fixture(scope="module")
def vectors(small):
    return small.encode(TEXTS)


@pytest.fixture
def png(inputs):
    buffer = io.BytesIO()
    inputs.picture(40, 60).save(buffer, "PNG")
    return buffer.getvalue()


def same(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "one",
    ["a red flag", np.str_("a red flag"), {"text": "a red flag"}, UserDict(text="a red flag"), Item("a red flag")],
    ids=lambda one: type(one).__name__,
)
def test_one_item_is_one_vector(small, vectors, one):
    same(small.encode(one), vectors[0])


def test_one_picture_is_one_vector_alone_and_in_a_list(small, png, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png)
    with Image.open(path) as picture:
        forms = [picture, path, png]
        expected = small.encode([{"image": path}])
        for form in forms:
            same(small.encode(form), expected[0])
        same(small.encode(forms), np.repeat(expected, 3, axis=0))


@pytest.mark.parametrize(
    "container",
    [
        list, tuple, deque, iter, np.array, pd.Series, pd.Index, pa.array, lambda texts: np.array(texts, object),
        lambda texts: (text for text in texts), lambda texts: dict.fromkeys(texts).keys(),
        lambda texts: pa.chunked_array([texts[:1], texts[1:]]), lambda texts: pd.Series(texts, index=[7, 3, 5]),
        lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
    ],
)  # fmt: skip
def test_a_container_of_texts_is_a_row_each(small, vectors, container):
    same(small.encode(container(TEXTS)), vectors)


TABLES = {
    "pandas": lambda columns: pd.DataFrame(columns, index=[7, 3, 5]),
    "datasets": datasets.Dataset.from_dict,
    "formatted": lambda columns: datasets.Dataset.from_dict(columns).with_format("torch"),
    "streamed": lambda columns: datasets.Dataset.from_dict(columns).to_iterable_dataset(),
    "mapped": lambda columns: datasets.Dataset.from_dict(columns).to_iterable_dataset().map(lambda row: row),
    "arrow": pa.table,
    "batch": pa.RecordBatch.from_pydict,
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_a_row_each_by_the_names_of_its_columns(small, vectors, table):
    same(small.encode(TABLES[table]({"id": [1, 2, 3], "text": TEXTS, "year": [7, 8, 9]})), vectors)


@pytest.mark.parametrize("table", TABLES)
def test_titles_and_pictures_of_a_table(small, png, table):
    columns = {"image": [png, None, None], "title": [None, "Peru", ""], "text": ["a flag", "a country", "plain"]}
    expected = small.encode([{"image": png, "text": "a flag"}, "Peru a country", "plain"])
    same(small.encode(TABLES[table](columns)), expected)


def test_pictures_of_a_data_set_as_the_library_keeps_them(small, png):
    features = datasets.Features({"image": datasets.Image()})
    decoded = datasets.Dataset.from_dict({"image": [{"bytes": png, "path": None}]}, features=features)
    expected = small.encode([png])
    same(small.encode(decoded), expected)
    same(small.encode(decoded.cast_column("image", datasets.Image(decode=False))), expected)


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_an_empty_cell_is_nothing(small, vectors, nothing):
    same(small.encode([{"text": TEXTS[0], "title": nothing, "image": nothing}]), vectors[:1])
    for item in (nothing, {"text": nothing}, {"text": nothing, "image": ""}):
        with pytest.raises(FoundryError, match="Item 1: An item needs a text, an image, or both"):
            small.encode([TEXTS[0], item])


def test_rows_of_a_frame_with_gaps(small, vectors):
    frame = pd.DataFrame({"text": [TEXTS[0], None, TEXTS[2]]})
    for rows in (frame, frame["text"], frame.to_dict("records")):
        bad = {}
        found = small.encode(rows, bad=bad)
        assert list(bad) == [1]
        same(found[[0, 2]], vectors[[0, 2]])


def test_an_empty_text_is_the_text_that_it_is(small):
    assert small.encode("").shape == (small.dimension,)
    same(small.encode(["", {"text": ""}])[1], small.encode(""))


@pytest.mark.parametrize(
    "empty",
    [[], (), iter([]), np.array([], str), pd.DataFrame({"text": []}), pa.table({"text": pa.array([], pa.string())})],
)
def test_no_items_are_no_rows(small, empty):
    assert small.encode(empty).shape == (0, small.dimension)


REFUSED = {
    "number": (5, "int"),
    "nothing": (None, "NoneType"),
    "set": ({"a", "b"}, "set"),
    "tensor": (torch.zeros(2, 3), "Tensor"),
    "pixels": (np.zeros((4, 4, 3), np.uint8), r"array of uint8 \[4, 4, 3\]"),
    "numbers": (np.arange(3), "array of int64"),
    "bytes in an array": (np.array([b"a"]), r"array of \|S1"),
    "file": (io.StringIO("a\nb"), "StringIO"),
    "columns": ({"text": ["a", "b"]}, "list"),
    "data sets": (datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]})), "Several data sets: train"),
    "frame without texts": (pd.DataFrame({"body": ["a"], "title": ["b"]}), "its columns: body, title"),
    "table without texts": (pa.table({"passage": ["a"]}), "its columns: passage"),
    "stream without texts": (datasets.Dataset.from_dict({"passage": ["a"]}).to_iterable_dataset(), "passage"),
    "frame with a column twice": (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "column twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_container_of_items_is_refused(small, case):
    given, message = REFUSED[case]
    with pytest.raises(FoundryError, match=message):
        small.encode(given)


@pytest.mark.parametrize("item", [5, ["a", "b"], ("a", "b"), [0.5], {"text": 5}, {"text": ["a"]}, {"text": b"a"}])
def test_what_is_no_item_is_named_by_its_number(small, item):
    with pytest.raises(FoundryError, match=r"Item 1: .*found"):
        small.encode(["a", item])


def test_an_iterator_is_read_in_windows_and_numbered_through(small, monkeypatch):
    monkeypatch.setattr("gme_embedder.embedder._WINDOW", 3)
    texts = [f"number {number}" for number in range(8)]
    expected = small.encode(texts)
    items = (5 if number == 7 else text for number, text in enumerate(texts))
    bad = {}
    same(small.encode(items, bad=bad)[:7], expected[:7])
    assert list(bad) == [7]
    assert bad[7].startswith("Item 7: ")
    bad = {}
    assert not small.encode(iter([5, 5, 5, "a"]), bad=bad)[:3].any()
    assert list(bad) == [0, 1, 2]


def test_one_item_where_a_list_is_asked_for(small, tmp_path):
    for door in (small.preparer.prepare, small.preparer.tokenise, small.preparer.tokenise_prompts, as_list):
        for one in ("hello", {"text": "hello"}, Image.new("RGB", (9, 9))):
            with pytest.raises(FoundryError, match="Expected a list of items, found one"):
                door(one)
        with pytest.raises(FoundryError, match="found int"):
            door(5)
    with pytest.raises(FoundryError, match="found one str"):
        MiniLM.encode(None, "hello")
    assert len(small.preparer.tokenise(pd.DataFrame({"text": TEXTS}))) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("hello", "Expected a list of keys, found str"),
        (5, "found int"),
        (["a", 5], "Key 1 must be a string, found int"),
        (["a", None], "Key 1 must be a string, found NoneType"),
        (["a", "b\ud83d"], "Key 1 has half of a character"),
    ],
)
def test_keys_of_a_store(tmp_path, keys, message):
    with pytest.raises(FoundryError, match=message):
        EmbeddingStore(tmp_path).encode("model", keys, lambda rows: np.ones((len(rows), 2), np.float32))


def test_keys_may_be_a_column(tmp_path):
    store = EmbeddingStore(tmp_path)
    found = store.encode("model", pd.Series(TEXTS), lambda rows: np.ones((len(rows), 2), np.float32))
    assert found.shape == (3, 2)


def test_a_list_is_taken_as_it_is():
    assert items_of(TEXTS) is TEXTS
