from __future__ import annotations

import torch

from gme_training.data.augment import augment


def pictures() -> torch.Tensor:
    pixels = torch.full((6, 28, 28, 3), 255, dtype=torch.uint8)
    pixels[:, 8:20, 8:20, 0] = 30
    return pixels


def test_the_same_seed_gives_the_same_pictures_and_each_changes_in_its_own_way():
    first, second = (augment(pictures(), 0.8, (1, 2, 3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(pictures(), 0.8, (1, 2, 4)))
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.uint8
    assert first.shape == (6, 28, 28, 3)


def test_strength_zero_changes_nothing():
    assert (augment(pictures(), 0.0, (1,)).int() - pictures().int()).abs().max() <= 1


def test_what_comes_in_at_the_border_is_as_light_as_the_ground():
    moved = augment(pictures(), 1.0, (5,))
    corners = moved[:, [0, 0, -1, -1], [0, -1, 0, -1]].float()
    middles = moved[:, 14, 14, 1].float()
    assert (corners.mean(-1) > middles[:, None] - 80).all()
    assert corners.min() > 100
