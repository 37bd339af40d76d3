"""The gradient cache equals the plain full batch, whatever it keeps; and it holds no more than it may."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from support.gradient_cases import CASES, WHOLE, assert_equal, gradients

from gme_training.config import GradientCacheConfig, LoraConfig
from gme_training.losses.gradient_cache import cached_gradients


@pytest.fixture(scope="module")
def images(world: dict[str, Path]) -> Path:
    return world["corpus"] / "images"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("retained_mib", [0, 3, 4096])
def test_equals_the_plain_full_batch(name: str, retained_mib: int, images: Path):
    assert_equal(
        gradients(name, GradientCacheConfig(micro_batch_tokens=150, retained_mib=retained_mib), images),
        gradients(name, WHOLE, images),
    )


def test_dropout_is_the_same_however_much_is_kept(images: Path):
    lora = LoraConfig(rank=4, dropout=0.3)
    some = [
        gradients("lora", GradientCacheConfig(micro_batch_tokens=150, retained_mib=mib), images, lora=lora)
        for mib in (0, 3, 4096)
    ]
    assert_equal(some[0], some[2])
    assert_equal(some[1], some[2])
    without = gradients("lora", GradientCacheConfig(micro_batch_tokens=150, retained_mib=0), images)
    assert not torch.allclose(some[0]["loss"], without["loss"])


@pytest.mark.parametrize("name", ["mixed", "frozen-tower", "lora"])
@pytest.mark.parametrize("retained_mib", [0, 4096])
def test_layers_that_are_computed_again_give_the_same(name: str, retained_mib: int, images: Path):
    changes = {"lora": LoraConfig(rank=4, dropout=0.3)} if name == "lora" else {}
    again = gradients(
        name,
        GradientCacheConfig(micro_batch_tokens=150, retained_mib=retained_mib),
        images,
        checkpointed=True,
        **changes,
    )
    assert_equal(
        again,
        gradients(name, GradientCacheConfig(micro_batch_tokens=150, retained_mib=retained_mib), images, **changes),
    )


class Counting:
    """An encoder that counts its calls with and without a graph."""

    def __init__(self) -> None:
        self.weight = torch.randn(8, 4, generator=torch.manual_seed(0)).requires_grad_()
        self.graphs, self.calls = 0, 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.graphs += torch.is_grad_enabled()
        return torch.tanh(inputs @ self.weight)


@pytest.mark.parametrize(("retained_bytes", "again"), [(0, 5), (10**6, 0)])
def test_what_is_kept_is_not_encoded_twice(retained_bytes: int, again: int):
    encoder, parts = Counting(), list(torch.randn(5, 3, 8, generator=torch.manual_seed(1)))
    loss, (gradient,) = cached_gradients(
        encoder, parts, lambda vectors: vectors.square().sum(), [encoder.weight], retained_bytes=retained_bytes
    )
    assert (encoder.calls, encoder.graphs) == (5 + again, 5)
    expected = torch.tanh(torch.cat(parts) @ encoder.weight).square().sum()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, encoder.weight)[0])


def test_the_kept_graphs_stay_within_the_memory():
    encoder, parts = Counting(), [torch.randn(64, 8) for _ in range(10)]
    graph = 64 * 8 * 4 + 64 * 4 * 4  # bytes of the inputs and of what tanh keeps; the weight is no part of it
    cached_gradients(encoder, parts, lambda vectors: vectors.sum(), [encoder.weight], retained_bytes=4 * graph)
    assert encoder.calls == 16


def test_the_way_back_holds_no_vectors_of_the_way_there():
    class Watched(Counting):
        """Counts, whenever it encodes again, how many of its first vectors are left."""

        def __init__(self) -> None:
            super().__init__()
            self.first: list[weakref.ref[torch.Tensor]] = []
            self.alive: list[int] = []

        def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
            vectors = super().__call__(inputs)
            if len(self.first) < 5:
                self.first.append(weakref.ref(vectors))
            else:
                self.alive.append(sum(graph() is not None for graph in self.first))
            return vectors

    encoder = Watched()
    parts = [torch.randn(3, 8) for _ in range(5)]
    cached_gradients(encoder, parts, lambda vectors: vectors.square().sum(), [encoder.weight], retained_bytes=0)
    assert encoder.alive == [0] * 5


def test_parameters_that_the_loss_uses_itself_and_those_nobody_uses():
    encoder, scale, idle = Counting(), torch.tensor(2.0).requires_grad_(), torch.zeros(3).requires_grad_()
    parts = list(torch.randn(2, 3, 8, generator=torch.manual_seed(1)))
    parameters = [encoder.weight, scale, idle]
    _, computed = cached_gradients(encoder, parts, lambda vectors: vectors.sum() * scale, parameters, retained_bytes=0)
    torch.testing.assert_close(computed[1], torch.tanh(torch.cat(parts) @ encoder.weight).sum().detach())
    assert computed[2] is None
