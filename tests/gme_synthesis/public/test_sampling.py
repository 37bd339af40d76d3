"""Rows are sampled evenly, and examples are allocated by share."""

from __future__ import annotations

from gme_synthesis.public.sampling import allocate, allocate_by_kind, sample_rows, select_rows


def test_division_gives_what_one_lacks_to_the_others() -> None:
    assert allocate(10, {"a": 100, "b": 100}, {"a": 1, "b": 1}) == {"a": 5, "b": 5}
    assert allocate(10, {"a": 2, "b": 100, "c": 100}, {"a": 1, "b": 1, "c": 3}) == {"a": 2, "b": 2, "c": 6}
    assert allocate(1000, {"a": 2, "b": 3}, {"a": 1, "b": 1}) == {"a": 2, "b": 3}
    assert allocate(7, {"a": 0, "b": 9}, {"a": 1, "b": 1}) == {"a": 0, "b": 7}
    assert allocate(5, {"a": 9, "b": 9, "c": 9}, {"a": 1, "b": 1, "c": 1}) == {"a": 2, "b": 2, "c": 1}
    there = {"text": 1000, "image": 300, "cross": 700, "fused": 2000}
    shares = {"text": 1, "image": 1, "cross": 2, "fused": 2}
    assert allocate_by_kind(there, shares, None) == {"text": 300, "image": 300, "cross": 600, "fused": 600}
    assert allocate_by_kind(there, shares, 60) == {"text": 10, "image": 10, "cross": 20, "fused": 20}
    assert allocate_by_kind(there, {"text": 1}, None) == {"text": 1000, "image": 0, "cross": 0, "fused": 0}
    assert allocate_by_kind(there, None, None) == there


def test_a_draw_is_even_sorted_and_reads_no_further_than_it_must() -> None:
    drawn = sample_rows(1000, 100, seed=0, name="a")
    assert drawn is not None
    assert len(set(drawn.tolist())) == 100
    assert drawn.tolist() == sorted(drawn.tolist())
    assert sample_rows(1000, 100, seed=0, name="b").tolist() != drawn.tolist()  # type: ignore[union-attr]
    assert sample_rows(10, 10, seed=0, name="a") is None
    read: list[int] = []
    rows = (read.append(number) or number for number in range(1000))
    assert list(select_rows(rows, drawn)) == drawn.tolist()
    assert len(read) == drawn[-1] + 1 or len(read) == drawn[-1] + 2
