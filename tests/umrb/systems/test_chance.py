from __future__ import annotations

import numpy as np
import pytest

from umrb.metrics import METRICS, Judgements, per_query
from umrb.systems.chance import expected

# Three queries: one relevant, three graded, and as many as the pool but one.
JUDGEMENTS = Judgements(
    np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 2]),
    np.array([4, 0, 2, 5, 0, 1, 2, 3, 4, 5]),
    np.array([1.0, 3, 1, 2] + [1] * 6),
    3,
)
POOL = 7


@pytest.mark.parametrize("kind", sorted(METRICS))
@pytest.mark.parametrize("cutoff", [1, 3, 7, 20])
def test_expectation_equals_the_mean_over_many_random_orders(kind: str, cutoff: int) -> None:
    rng = np.random.default_rng(0)
    name = f"{kind}_at_{cutoff}"
    draws = [per_query(np.tile(rng.permutation(POOL), (3, 1)), JUDGEMENTS, [name])[name] for _ in range(4000)]
    assert expected(name, JUDGEMENTS, POOL) == pytest.approx(np.mean(draws, axis=0), abs=0.025)


def test_hit_rate_in_a_large_pool_is_k_over_n() -> None:
    judgements = Judgements(np.array([0]), np.array([0]), np.ones(1), 1)
    assert expected("hit_rate_at_10", judgements, 5_000_000)[0] == pytest.approx(10 / 5_000_000, rel=1e-6)


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_a_query_without_a_relevant_document_expects_nothing(kind: str) -> None:
    last = Judgements(np.array([0]), np.array([0]), np.ones(1), 2)
    first, nothing = expected(f"{kind}_at_5", last, POOL)
    assert first > 0
    assert nothing == pytest.approx(0, abs=1e-12)
