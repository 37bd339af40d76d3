"""Search is exact, and ties go to the lower row."""

from __future__ import annotations

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_embedder.index import search


def brute(queries, corpus, k):
    scores = queries @ corpus.T
    rows = np.lexsort((np.broadcast_to(np.arange(len(corpus)), scores.shape), -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


@pytest.fixture
def random():
    return np.random.default_rng(5)


def test_equals_sorting_everything(random):
    queries, corpus = (random.normal(size=(n, 24)).astype(np.float32) for n in (20, 700))
    scores, rows = search(queries, corpus, 10)
    expected_scores, expected_rows = brute(queries, corpus, 10)
    assert np.array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("levels", [2, 3])
def test_ties_go_to_the_lower_row_however_many_there_are(random, levels):
    # Whole numbers make every sum exact, so equal scores are equal bits.
    corpus = random.integers(0, levels, size=(900, 3)).astype(np.float32)
    queries = random.integers(0, levels, size=(40, 3)).astype(np.float32)
    scores, rows = search(queries, corpus, 7)
    expected_scores, expected_rows = brute(queries, corpus, 7)
    assert np.array_equal(rows, expected_rows)
    assert np.array_equal(scores, expected_scores)


def test_fewer_rows_than_asked_for(random):
    scores, rows = search(np.ones((2, 4), np.float32), random.normal(size=(3, 4)).astype(np.float32), 10)
    assert scores.shape == rows.shape == (2, 3)


def test_nothing_to_search():
    assert search(np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32), 5)[1].shape == (2, 0)
    assert search(np.ones((0, 4), np.float32), np.ones((9, 4), np.float32), 5)[1].shape == (0, 5)


@pytest.mark.parametrize(("shapes", "k"), [(((2, 4), (3, 5)), 1), (((4,), (3, 4)), 1), (((2, 4), (3, 4)), 0)])
def test_shapes_that_do_not_fit(shapes, k):
    with pytest.raises(FoundryError, match="Can't search"):
        search(*(np.ones(shape, np.float32) for shape in shapes), k)
