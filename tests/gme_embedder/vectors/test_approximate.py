"""Indices find what they should, and recall says how much of it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_embedder.vectors.approximate import build_index, recall
from gme_embedder.vectors.exact import search


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus():
    random = np.random.default_rng(1)
    return unit(np.repeat(random.normal(size=(50, 16)), 60, axis=0) + 0.3 * random.normal(size=(3000, 16)))


@pytest.fixture(scope="module")
def queries(corpus):
    return unit(corpus[::50] + 0.1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_flat_is_exact_over_shards(corpus, queries, dtype):
    shards = np.split(corpus.astype(dtype), [0, 700, 701])
    scores, rows = build_index(shards).search(queries, 8)
    expected_scores, expected_rows = search(queries, corpus.astype(dtype), 8)
    assert np.array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_most_are_found_and_the_share_is_logged(corpus, queries, kind, caplog):
    shards = np.split(corpus, [1000, 1000])
    with caplog.at_level(logging.INFO):
        share = build_index(shards, kind).measure(queries, shards, 10, sample=30)
    assert share > 0.8
    assert f"{kind}: recall@10 {share:.4f} on 30 queries" in caplog.text


def test_more_probes_find_all(corpus, queries):
    few, all_ = (build_index([corpus], "ivf", lists=40, probes=probes) for probes in (1, 40))
    assert few.measure(queries, [corpus], 20) < 1
    assert all_.measure(queries, [corpus], 20) == 1


def test_the_same_seed_builds_the_same(corpus, queries):
    one, other = (build_index([corpus], "ivf", lists=40, probes=2).search(queries, 20) for _ in range(2))
    assert np.array_equal(one[1], other[1])


def test_more_asked_for_than_there_are(queries):
    scores, rows = build_index([queries[:3]], "hnsw").search(queries[:2], 10)
    assert scores.shape == rows.shape == (2, 3)
    assert build_index([queries[:0]]).search(queries, 10)[1].shape == (len(queries), 0)


def test_recall():
    exact = np.array([[1, 2], [3, 4]])
    assert recall(exact[:, ::-1], exact) == 1
    assert recall(np.array([[2, -1], [9, 8]]), exact) == 0.25
    assert recall(np.zeros((2, 5), int), np.zeros((2, 0), int)) == 1


def test_refusals(queries):
    with pytest.raises(FoundryError, match="Unknown index"):
        build_index([queries], "tree")
    with pytest.raises(FoundryError, match="links"):
        build_index([queries], "ivf", links=3)
    with pytest.raises(FoundryError, match="shapes"):
        build_index([])
    with pytest.raises(FoundryError, match="shapes"):
        build_index([queries, queries[:, :3]])
    with pytest.raises(FoundryError, match="no vectors"):
        build_index([queries[:0]], "ivf")
    with pytest.raises(FoundryError, match="Can't search"):
        build_index([queries]).search(queries[:, :3], 1)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_numbers_that_are_not_finite_are_refused(corpus, queries, kind):
    damaged = corpus.copy()
    damaged[7] = np.nan
    with pytest.raises(FoundryError, match="a vector isn't finite"):
        build_index([damaged], kind)
    with pytest.raises(FoundryError, match="a query isn't finite"):
        build_index([corpus[:100]], kind).search(queries * np.inf, 1)
