from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogs import catalog_of

from gme_data.items import Item
from gme_training.data.batches import BatchSampler, assign_to_ranks
from gme_training.config import PhaseConfig, SourceShare


def phase(steps: int = 24, **share: object) -> PhaseConfig:
    question = SourceShare.model_validate(
        {"source": "question", "weight": 3, "batch_size": 12, "grouped": 0.5, "group_size": 3, **share}
    )
    return PhaseConfig(name="mix", steps=steps, mixture=(question, SourceShare(source="shape", batch_size=8)))


@pytest.fixture(scope="module")
def catalog(examples):
    return catalog_of(examples)


def test_a_batch_depends_on_its_step_alone(catalog):
    sampler, other = (BatchSampler(catalog, phase(), number=1, seed=5) for _ in range(2))
    forward = [sampler.batch(step) for step in range(24)]
    backward = [other.batch(step) for step in reversed(range(24))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert a.seed == b.seed
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.candidates, b.candidates)
    moved = BatchSampler(catalog, phase(), number=1, seed=6).batch(0)
    assert set(moved.rows.tolist()) != set(forward[0].rows.tolist())


def test_batches_hold_one_source_by_weight_and_no_example_twice(catalog):
    plan = BatchSampler(catalog, phase(), number=0, seed=1)
    sources = Counter()
    for step in range(24):
        batch = plan.batch(step)
        batch_sources = {catalog.examples[row].source for row in batch.rows}
        assert batch_sources == {batch.share.source}
        assert len(set(batch.rows.tolist())) == len(batch.rows) == batch.share.batch_size
        sources[batch.share.source] += 1
    assert sources == {"question": 18, "shape": 6}


def test_half_of_a_batch_comes_in_groups_of_one_key(catalog):
    batch = BatchSampler(catalog, phase(), number=0, seed=1).batch(0)
    keys = Counter(catalog.examples[row].batch_key for row in batch.rows[:6])
    assert sorted(keys.values()) in ([3, 3], [6])
    assert len({catalog.positive[row] for row in batch.rows[:3]}) == 3


def test_every_example_is_an_anchor_once_an_epoch(catalog):
    plan = BatchSampler(catalog, phase(steps=8, grouped=0.0), number=0, seed=1)
    seen = [row for step in range(8) if (b := plan.batch(step)).share.source == "question" for row in b.rows]
    counts = Counter(int(row) for row in seen[:36])  # 36 questions, 12 a batch: three batches are an epoch
    assert set(counts.values()) == {1}


def test_targets_point_at_positives_and_each_candidate_stands_once(catalog):
    batch = BatchSampler(catalog, phase(), number=0, seed=1).batch(0)
    np.testing.assert_array_equal(batch.candidates[batch.targets], catalog.positive[batch.rows])
    assert len(set(batch.candidates.tolist())) == len(batch.candidates)
    assert not {tuple(pair) for pair in batch.false_negatives.tolist()} & set(enumerate(batch.targets.tolist()))


def test_hard_negatives_are_candidates_and_known_positives_are_masked(examples):
    questions = [example for example in examples if example.source == "question"]
    first, second, third = questions[:3]
    twin = replace(second, id="twin", query=first.query)  # the same question with another good answer
    hard = replace(first, negatives=(third.positive, Item(text="A passage that no example has.")))
    catalog = catalog_of([hard, twin, third, *questions[3:]])
    share = SourceShare(source="question", batch_size=len(questions), grouped=0, num_negatives=2)
    batch = BatchSampler(catalog, PhaseConfig(name="p", steps=1, mixture=(share,)), number=0, seed=1).batch(0)
    column = {catalog.items[item]: place for place, item in enumerate(batch.candidates.tolist())}
    row = batch.rows.tolist().index(0)
    false_negatives, own_candidates = ({tuple(pair) for pair in pairs.tolist()} for pairs in (batch.false_negatives, batch.own_candidates))
    assert (row, column[twin.positive]) in false_negatives
    assert (row, column[third.positive]) not in false_negatives
    assert (row, column[hard.negatives[1]]) not in false_negatives
    assert {(row, column[item]) for item in (hard.positive, *hard.negatives)} <= own_candidates
    assert (row, column[twin.positive]) not in own_candidates
    assert len(batch.candidates) == len(questions) + 1


def test_look_alikes_are_masked_where_told(examples):
    questions = [example for example in examples if example.source == "question"]
    alike = [replace(questions[0], entity_group="g"), replace(questions[3], entity_group="g"), *questions[4:]]
    catalog = catalog_of(alike)
    other = int(catalog.positive[1])
    assert alike[0].batch_key == alike[1].batch_key
    assert other in catalog.false_negatives(0, mask_same_group=True)
    assert other not in catalog.false_negatives(0, mask_same_group=False)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(1, 5))
def test_shares_are_disjoint_complete_and_even(costs, ranks):
    parts = assign_to_ranks(costs, ranks)
    assert sorted(unit for part in parts for unit in part) == list(range(len(costs)))
    loads = [sum(costs[unit] for unit in part) for part in parts]
    assert max(loads) - min(loads) <= max(costs)
