"""Two and three gloo ranks with the gradient cache have the gradients of one process and the plain batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.gradient_cases import CASES, WHOLE, gradients
from support.ranks import run_ranks_of
from support.shapes import make_examples

from gme_data.images import write_images


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("ranks")
    write_images(folder / "images", make_examples()[1])
    run_ranks_of("support.gradient_cases", request.param, str(folder))
    return request.param, folder


@pytest.mark.parametrize("name", CASES)
def test_ranks_together_equal_one_process(name: str, shared: tuple[int, Path]):
    ranks, folder = shared
    expected = gradients(name, WHOLE, folder / "images")
    found = load_file(folder / f"{name}-{ranks}.safetensors")
    assert found.keys() == expected.keys()
    for key, one in expected.items():
        # The temperature's is a small difference of large sums.
        atol = 1e-5 if key == "log_temperature" else 1e-6
        torch.testing.assert_close(found[key], one, rtol=1e-4, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
