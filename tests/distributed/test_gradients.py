"""Two and three gloo ranks with the gradient cache have the gradients of one process and the plain batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.gradient_cases import CASES, WHOLE, assert_equal, gradients
from support.ranks import run_ranks_of
from support.shapes import make_examples

from gme_data.images import write_images


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("ranks")
    write_images(folder / "images", make_examples()[1])
    run_ranks_of("support.gradient_cases", request.param, str(folder))
    return request.param, folder


@pytest.mark.parametrize("name", CASES)
def test_ranks_together_equal_one_process(name: str, shared: tuple[int, Path]):
    ranks, folder = shared
    found = load_file(folder / f"{name}-{ranks}.safetensors")
    assert_equal(found, gradients(name, WHOLE, folder / "images"))
