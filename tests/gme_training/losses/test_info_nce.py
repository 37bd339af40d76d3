"""The loss against an own dense float64 computation: values, gradients, parts of the rows, tiles."""

from __future__ import annotations

import math

import pytest
import torch

from gme_training.config import LossConfig
from gme_training.losses import info_nce as losses
from gme_training.losses.info_nce import contrastive_loss
from gme_training.losses.pairing import Pairing

RANKS = 3


def case(queries: int = 7, candidates: int = 12, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(queries, 6, generator=generator, dtype=torch.float64), dim=1)
    c = torch.nn.functional.normalize(torch.randn(candidates, 6, generator=generator, dtype=torch.float64), dim=1)
    targets = torch.arange(queries) % (queries - 2)  # two positives are shared by two queries each
    masked = torch.rand(queries, candidates, generator=generator) < 0.2
    masked[torch.arange(queries), targets] = False
    own_candidates = [(row, int(target)) for row, target in enumerate(targets)]
    own_candidates += [
        (row, queries - 2 + row % (candidates - queries + 2)) for row in range(queries)
    ]  # a hard negative each
    pairing = Pairing(targets, masked.nonzero(), torch.tensor(own_candidates), candidates, RANKS)
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    return q.requires_grad_(), c.requires_grad_(), pairing, masked, scale


def reference(q, c, pairing: Pairing, masked, scale, config: LossConfig):
    """Sum over queries, term by term, as the formula is written."""
    if config.matryoshka_dims:
        plain = config.model_copy(update={"matryoshka_dims": ()})
        short = [
            torch.nn.functional.normalize(part, dim=1) for k in config.matryoshka_dims for part in (q[:, :k], c[:, :k])
        ]
        parts = [(q, c), *zip(short[::2], short[1::2], strict=True)]
        return sum(reference(*part, pairing, masked, scale, plain) for part in parts) / len(parts)
    targets, own_candidates = pairing.targets.tolist(), {tuple(pair) for pair in pairing.own_candidates.tolist()}
    sure_q, sure_c = q.detach(), c.detach()
    of_rank = {(row % RANKS, column) for row, column in own_candidates}

    def counts(i: int, j: int) -> bool:
        if j == targets[i] or masked[i, j]:
            return False
        scope = {"own": (i, j) in own_candidates, "in_batch": (i % RANKS, j) in of_rank, "cross_rank": True}
        near = (
            config.false_negative_margin is not None
            and float(sure_q[i] @ sure_c[j]) > float(sure_q[i] @ sure_c[targets[i]]) + config.false_negative_margin
        )
        return scope[config.negatives] and not near

    def counts_back(i: int, k: int) -> bool:
        if targets[k] == targets[i] or masked[k, targets[i]]:
            return False
        near = (
            config.false_negative_margin is not None
            and float(sure_q[k] @ sure_c[targets[i]])
            > float(sure_q[i] @ sure_c[targets[i]]) + config.false_negative_margin
        )
        return (config.negatives == "cross_rank" or k % RANKS == i % RANKS) and not near

    def term(cosine, *, negative: bool = True):
        weight = torch.exp(config.hardness_strength * cosine.detach()) if negative else 1.0
        return weight * torch.exp(cosine * scale)

    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(q)):
        target_term = term(q[i] @ c[targets[i]], negative=False)
        forward = -torch.log(
            target_term / (target_term + sum(term(q[i] @ c[j]) for j in range(len(c)) if counts(i, j)))
        )
        back = -torch.log(
            target_term / (target_term + sum(term(q[k] @ c[targets[i]]) for k in range(len(q)) if counts_back(i, k)))
        )
        total = total + ((forward + back) / 2 if config.symmetric else forward)
    return total


@pytest.mark.parametrize("tile", [1, 28, 2**20])  # a column at a time, four, all
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"symmetric": True},
        {"negatives": "own"},
        {"negatives": "in_batch"},
        {"negatives": "in_batch", "symmetric": True, "hardness_strength": 2.0},
        {"false_negative_margin": 0.1, "symmetric": True},
        {"hardness_strength": 3.0},
        {"matryoshka_dims": (2, 4), "hardness_strength": 1.0},
    ],
    ids=str,
)
def test_equals_the_dense_reference_in_value_and_gradient(changes, tile, monkeypatch):
    monkeypatch.setattr(losses, "TILE", tile)
    config = LossConfig.model_validate(changes)
    q, c, pairing, masked, scale = case()
    parts = contrastive_loss(q, c, pairing, config, scale, torch.arange(len(q)))
    expected = reference(q, c, pairing, masked, scale, config)
    assert parts.loss.item() == pytest.approx(expected.item(), abs=1e-10)
    got = torch.autograd.grad(parts.loss, [q, c, scale])
    want = torch.autograd.grad(expected, [q, c, scale])
    for actual, expected_gradient in zip(got, want, strict=True):
        torch.testing.assert_close(actual, expected_gradient, atol=1e-10, rtol=0)


@pytest.mark.parametrize("negatives", ["own", "in_batch", "cross_rank"])
def test_parts_of_the_rows_add_up_to_the_whole(negatives):
    config = LossConfig(negatives=negatives, symmetric=negatives != "own")
    q, c, pairing, _, scale = case(8, 11, seed=3)
    full = contrastive_loss(q, c, pairing, config, scale, torch.arange(8))
    parts = [contrastive_loss(q, c, pairing, config, scale, pairing.rows_of(rank)) for rank in range(RANKS)]
    assert sum(part.loss.item() for part in parts) == pytest.approx(full.loss.item(), abs=1e-12)
    assert sum(int(part.correct) for part in parts) == int(full.correct)
    assert sum(float(part.negative) for part in parts) == pytest.approx(float(full.negative), abs=1e-12)


def test_masked_candidates_do_not_count_and_the_untrained_loss_is_the_logarithm_of_the_rest():
    q = torch.ones(4, 3) / math.sqrt(3)
    c = torch.ones(6, 3) / math.sqrt(3)
    false_negatives = torch.cartesian_prod(torch.arange(4), torch.tensor([4, 5]))
    diagonal = torch.stack([torch.arange(4), torch.arange(4)], dim=1)
    pairing = Pairing(torch.arange(4), false_negatives, diagonal, 6)
    parts = contrastive_loss(q, c, pairing, LossConfig(), torch.tensor(1 / 0.03), torch.arange(4))
    assert parts.loss.item() / 4 == pytest.approx(math.log(4), abs=1e-5)
    assert int(parts.correct) == 0  # a tie is no hit


def test_similarities_are_means_over_what_counts():
    q = torch.tensor([[1.0, 0.0]])
    c = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    pairing = Pairing(torch.tensor([0]), torch.tensor([[0, 3]]), torch.tensor([[0, 0]]), 4)
    parts = contrastive_loss(q, c, pairing, LossConfig(), torch.tensor(1.0), torch.arange(1))
    assert (float(parts.positive), float(parts.negative)) == (1.0, pytest.approx(0.3))


def test_a_query_without_negatives_has_no_loss():
    q = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.manual_seed(0)), dim=1)
    pairs = torch.stack([torch.arange(3), torch.arange(3)], dim=1)
    pairing = Pairing(torch.arange(3), torch.zeros(0, 2, dtype=torch.long), pairs, 3)
    parts = contrastive_loss(q, q, pairing, LossConfig(negatives="own"), torch.tensor(30.0), torch.arange(3))
    assert float(parts.loss) == pytest.approx(0, abs=1e-5)
    assert int(parts.correct) == 3
