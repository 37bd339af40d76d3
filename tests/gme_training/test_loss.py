"""The loss against an own dense float64 computation, whole and in parts."""

from __future__ import annotations

import math

import pytest
import torch

from gme_training.loss import contrast


def case(queries: int = 7, candidates: int = 9, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(queries, 5, generator=generator, dtype=torch.float64), dim=1)
    c = torch.nn.functional.normalize(torch.randn(candidates, 5, generator=generator, dtype=torch.float64), dim=1)
    targets = torch.arange(queries) % (queries - 2)  # two positives are shared by two queries each
    masked = torch.rand(queries, candidates, generator=generator) < 0.2
    masked[torch.arange(queries), targets] = False
    return q.requires_grad_(), c.requires_grad_(), targets, masked


def reference(q, c, targets, masked, temperature: float, symmetric: bool):
    """Sum over queries, term by term, as the formula is written."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(q)):
        t = int(targets[i])
        own = torch.exp(q[i] @ c[t] / temperature)
        there = own + sum(torch.exp(q[i] @ c[j] / temperature) for j in range(len(c)) if j != t and not masked[i, j])
        forward = -torch.log(own / there)
        back = own + sum(
            torch.exp(q[k] @ c[t] / temperature)
            for k in range(len(q))
            if k != i and not masked[k, t] and int(targets[k]) != t
        )
        total = total + ((forward - torch.log(own / back)) / 2 if symmetric else forward)
    return total


@pytest.mark.parametrize("symmetric", [False, True])
def test_equals_the_dense_reference_in_value_and_gradient(symmetric):
    q, c, targets, masked = case()
    rows = torch.arange(len(q))
    parts = contrast(q, c, targets, masked, rows=rows, temperature=0.1, symmetric=symmetric)
    expected = reference(q, c, targets, masked, 0.1, symmetric)
    assert parts.loss.item() == pytest.approx(expected.item(), abs=1e-10)
    got = torch.autograd.grad(parts.loss, [q, c])
    want = torch.autograd.grad(expected, [q, c])
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


def test_parts_of_the_rows_add_up_to_the_whole():
    q, c, targets, masked = case(8, 11, seed=3)
    settings = {"temperature": 0.05, "symmetric": True}
    whole = contrast(q, c, targets, masked, rows=torch.arange(8), **settings)
    halves = [contrast(q, c, targets, masked, rows=torch.arange(r, 8, 2), **settings) for r in range(2)]
    assert sum(half.loss.item() for half in halves) == pytest.approx(whole.loss.item(), abs=1e-12)
    assert sum(int(half.correct) for half in halves) == int(whole.correct)


def test_masked_candidates_do_not_count_and_the_untrained_loss_is_the_logarithm_of_the_rest():
    q = torch.ones(4, 3) / math.sqrt(3)
    c = torch.ones(6, 3) / math.sqrt(3)
    masked = torch.zeros(4, 6, dtype=torch.bool)
    masked[:, 4:] = True
    parts = contrast(q, c, torch.arange(4), masked, rows=torch.arange(4), temperature=0.03, symmetric=False)
    assert parts.loss.item() / 4 == pytest.approx(math.log(4), abs=1e-5)
    assert int(parts.correct) == 0  # a tie is no hit
