"""Search is exact, whatever the corpus, and ties go to the lower row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gme_data.errors import FoundryError
from gme_embedder.vectors import exact
from gme_embedder.vectors.approximate import build_index
from gme_embedder.vectors.exact import search, search_shards


def brute(queries, corpus, k):
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    rows = np.lexsort((np.broadcast_to(np.arange(len(corpus)), scores.shape), -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def check(queries, corpus, k, found=None):
    """Scores are those of the rows, in order, ties by row, and no row left out is better."""
    scores, rows = search(queries, corpus, k) if found is None else found
    expected, _ = brute(queries, corpus, k)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    assert scores.shape == rows.shape == expected.shape
    lengths = (np.linalg.norm(array.astype(np.float64), axis=1) for array in (queries, corpus))
    size = next(lengths)[:, None] * next(lengths).max(initial=0)
    atol = corpus.shape[1] * 2.0**-24 * size + 1e-30
    true = np.einsum("qd,qkd->qk", queries.astype(np.float64), corpus.astype(np.float64)[rows])
    assert (np.abs(scores - true) <= atol).all()
    assert (np.abs(scores - expected) <= atol).all()
    falls, rises = np.diff(scores) < 0, np.diff(rows) > 0
    assert (falls | ((np.diff(scores) == 0) & rises)).all()
    assert all(len(set(line)) == len(line) for line in rows.tolist())


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.fixture(params=["as it is", "no bfloat16", "small blocks"])
def scans(request, monkeypatch):
    """Both scans, and blocks and tiles so small that every border is crossed."""
    if request.param == "no bfloat16":
        monkeypatch.setattr(exact, "_HAS_FAST_BF16", False)
    if request.param == "small blocks":
        small = {
            "MAX_BLOCK_ROWS": 64,
            "MAX_BLOCK_NUMBERS": 1024,
            "MAX_INITIAL_ROWS": 256,
            "MAX_SCANNED_SCORES": 8192,
            "MIN_TILE_QUERIES": 64,
            "SORTED_QUERIES": 16,
            "MIN_QUERIES_FOR_BF16": 1,
        }
        for name, value in small.items():
            monkeypatch.setattr(exact, name, value)


def test_equals_sorting_everything(random, scans):
    queries, corpus = (random.normal(size=(n, 24)).astype(np.float32) for n in (150, 6000))
    scores, rows = search(queries, corpus, 10)
    expected_scores, expected_rows = brute(queries, corpus, 10)
    assert np.array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("k", [1, 7, 300])
def test_ties_go_to_the_lower_row_however_many_there_are(random, levels, k, scans):
    # Whole numbers make every sum exact, so equal scores are equal bits.
    corpus = random.integers(1 - levels, levels, size=(9000, 3)).astype(np.float32)
    queries = random.integers(1 - levels, levels, size=(140, 3)).astype(np.float32)
    scores, rows = search(queries, corpus, k)
    expected_scores, expected_rows = brute(queries, corpus, k)
    assert np.array_equal(rows, expected_rows)
    assert np.array_equal(scores, expected_scores)


def clusters(random, spread, count=20):
    centres = unit(random.normal(size=(count, 32)))
    return unit(np.repeat(centres, 8000 // count, axis=0) + spread * random.normal(size=(8000, 32)))


@pytest.mark.parametrize("spread", [0.1, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("k", [10, 500])
def test_clusters(random, spread, k, scans):
    corpus = clusters(random, spread)
    queries = unit(corpus[random.integers(0, len(corpus), 150)] + 0.05 * random.normal(size=(150, 32)))
    check(queries, corpus, k)


def test_clusters_are_left_to_float32(random, monkeypatch):
    """The scan in bfloat16 can't tell them apart, so almost all of them would be scored one by one."""
    corpus = clusters(random, 1e-3, 2)[random.permutation(8000)]
    queries = unit(corpus[:150] + 0.05 * random.normal(size=(150, 32)))
    scored, pairwise = [], exact._pairwise

    def count(queries, block, indices):
        scored.append((indices >= 0).sum())
        return pairwise(queries, block, indices)

    monkeypatch.setattr(exact, "_pairwise", count)
    monkeypatch.setattr(exact, "MAX_INITIAL_ROWS", 1024)
    monkeypatch.setattr(exact, "MAX_BLOCK_ROWS", 256)
    check(queries, corpus, 10)
    assert sum(scored) < 150 * 8000 / 2 / 4


@pytest.mark.parametrize("shards", [1, 3, 61])
def test_equal_vectors_tie_wherever_they_lie(random, shards, scans):
    few = unit(random.normal(size=(40, 100)))
    drawn = random.integers(0, len(few), 5000)
    queries = unit(random.normal(size=(130, 100)))
    scores, rows = search_shards(queries, np.array_split(few[drawn], shards), 300)
    check(queries, few[drawn], 300, (scores, rows))
    alone, _ = search(queries, few, 40)
    for line, found, known in zip(scores, rows, alone, strict=True):
        assert set(line.tolist()) <= set(known.tolist())
        for value in set(line.tolist()):
            vectors = drawn[found[line == value]]
            everywhere = np.flatnonzero(np.isin(drawn, vectors))
            assert np.array_equal(found[line == value], everywhere[: (line == value).sum()])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("k", [1, 40, 2000])
def test_memory_mapped_shards(random, tmp_path, dtype, k, scans):
    corpus = unit(random.normal(size=(1500, 48))).astype(dtype)
    queries = unit(random.normal(size=(140, 48)))
    shards = []
    for number, shard in enumerate(np.split(corpus, [0, 1, 700, 700, 1499])):
        np.save(tmp_path / f"{number}.npy", shard)
        shards.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    found = search_shards(queries, iter(shards), k)
    check(queries, corpus, k, found)
    for one, other in zip(found, search(queries, corpus, k), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e-12, 1e-3, 1e3, 1e12])
def test_lengths_of_any_size(random, scale, scans):
    corpus = random.normal(size=(3000, 16)) * scale * 10.0 ** random.uniform(-2, 2, size=(3000, 1))
    check(random.normal(size=(130, 16)).astype(np.float32), corpus.astype(np.float32), 20)


def test_scores_below_nothing_and_at_it(random, scans):
    corpus = -np.abs(random.normal(size=(5000, 8))).astype(np.float32)
    corpus[::3] = 0
    check(np.abs(random.normal(size=(130, 8))).astype(np.float32), corpus, 10)
    check(np.abs(random.normal(size=(130, 8))).astype(np.float32), corpus[corpus[:, 0] < 0], 10)
    check(np.zeros((130, 8), np.float32), corpus, 10)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_numbers(data):
    size, rows = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 90))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = np.array(data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5)), np.float32)
    corpus = random.choice(values, (rows, size))
    queries = random.choice(values, (data.draw(st.sampled_from([1, 5, 140])), size))
    k = data.draw(st.integers(1, 100))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    found = search_shards(queries, np.split(corpus, cuts), k)
    check(queries, corpus, k, found)


def test_the_error_of_the_rounded_scan_is_within_its_bound(random):
    if not exact._HAS_FAST_BF16:
        pytest.skip("this processor has neither AVX512-BF16 nor AMX: the rounded scan is not used on it")
    queries, corpus = unit(random.normal(size=(200, 777))), unit(random.normal(size=(500, 777)))
    neighbours = exact._Neighbours(queries, 3)
    (keys,), error = neighbours._scan_bf16(np.arange(200), [corpus], [])
    rounded = exact._from_bits(keys)
    true = queries.astype(np.float64) @ corpus.T.astype(np.float64)
    assert (np.abs(rounded - true) <= error[:, None] + np.abs(rounded) * 2.0**-8).all()
    assert error.max() < 0.006  # what the speed rests on


def test_rows_beyond_32_bits(random):
    queries, corpus = (random.normal(size=(n, 8)).astype(np.float32) for n in (3, 50))
    neighbours = exact._Neighbours(queries, 4)
    neighbours.add([corpus], 2**31 - 20)
    neighbours.add([corpus], 2**33)
    _, rows = neighbours.result(4)
    _, expected = brute(queries, corpus, 2)
    assert np.array_equal(rows[:, ::2], expected + 2**31 - 20)
    assert np.array_equal(rows[:, 1::2], expected + 2**33)


def test_bits_keep_the_order():
    numbers = np.array([-np.inf, -3, -1e-30, 0, 1e-30, 0.5, 3, np.inf], np.float32)
    ordered = exact._sortable(exact._to_bits(numbers))
    assert (np.diff(ordered.astype(int)) > 0).all()
    assert np.array_equal(exact._sortable(ordered), exact._to_bits(numbers))


def test_fewer_rows_than_asked_for(random):
    scores, rows = search(np.ones((2, 4), np.float32), random.normal(size=(3, 4)).astype(np.float32), 10)
    assert scores.shape == rows.shape == (2, 3)
    assert search(np.ones((2, 4), np.float32), np.ones((3, 4), np.float32), 10**12)[1].tolist() == [[0, 1, 2]] * 2


def test_nothing_to_search():
    assert search(np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32), 5)[1].shape == (2, 0)
    assert search(np.ones((0, 4), np.float32), np.ones((9, 4), np.float32), 5)[1].shape == (0, 5)
    assert search_shards(np.ones((2, 4), np.float32), [], 5)[1].shape == (2, 0)


@pytest.mark.parametrize(("shapes", "k"), [(((2, 4), (3, 5)), 1), (((4,), (3, 4)), 1), (((2, 4), (3, 4)), 0)])
def test_shapes_that_do_not_fit(shapes, k):
    with pytest.raises(FoundryError, match="Can't search"):
        search(*(np.ones(shape, np.float32) for shape in shapes), k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("queries", [2, 200])
def test_numbers_that_are_none(value, queries):
    left, right = np.ones((queries, 4), np.float32), np.ones((30, 4), np.float32)
    for array in (left, right):
        array[-1, 1] = value
        with pytest.raises(FoundryError, match="isn't finite"):
            search(left, right, 3)
        array[-1, 1] = 1


def test_shards_of_two_stores_are_not_searched_together():
    shards = [np.ones((2, 4), np.float32), np.ones((2, 4), np.float16)]
    for search_them in (lambda parts: search_shards(np.ones((1, 4), np.float32), parts, 1), build_index):
        with pytest.raises(FoundryError, match="float16 and float32"):
            search_them(shards)
        with pytest.raises(FoundryError, match="int64"):
            search_them([np.ones((2, 4), np.int64)])
