"""Sizes and patches are those of the released image processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as theirs

from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED, PictureConfig
from gme_embedder.processing.picture import patchify, resized, smart_resize, target_sizes

LIMITS = 256, 1280


@pytest.mark.parametrize("size", [(72, 72), (28, 28), (42, 70), (1000, 37), (3000, 2000), (5000, 100), (200, 200)])
@pytest.mark.parametrize("limits", [LIMITS, (4, 16)])
def test_sizes_equal_those_of_transformers(size, limits):
    assert smart_resize(*size, 28, *limits) == theirs.smart_resize(*size, 28, *(784 * limit for limit in limits))


def test_sides_that_differ_too_much_are_refused():
    with pytest.raises(FoundryError, match="1x300 px"):
        smart_resize(300, 1, 28, *LIMITS)


@pytest.mark.parametrize("size", [(72, 72), (150, 90), (90, 150)])
def test_patches_equal_those_of_transformers(inputs, size):
    config = PictureConfig(fit="aspect", min_image_tokens=4, max_image_tokens=16)
    image = inputs.picture(*size)
    processor = theirs.Qwen2VLImageProcessorPil(
        min_pixels=4 * 784, max_pixels=16 * 784, image_mean=list(config.mean), image_std=list(config.std)
    )
    made = processor(images=[image], return_tensors="pt")
    pixels = resized(image, config)
    assert made["image_grid_thw"].tolist() == [[1, pixels.shape[0] // 14, pixels.shape[1] // 14]]
    normal = (torch.from_numpy(pixels.copy()) / 255 - torch.tensor(config.mean)) / torch.tensor(config.std)
    patches = patchify(normal[None], 14)[0].view(-1, 196, 3).mT.flatten(1)  # [p, 588], channel first
    for frame in range(2):
        expected = made["pixel_values"].view(-1, 3, 2, 196)[:, :, frame].reshape(len(patches), -1)
        torch.testing.assert_close(patches, expected, atol=1e-5, rtol=0)


def test_squares_tell_pages_by_their_size():
    config = PictureConfig(side=56, page_side=112, page_from=200)
    assert target_sizes(72, 199, config) == [(56, 56)]
    assert target_sizes(72, 200, config) == [(112, 112)]


def test_double_resizes_first_to_multiples_of_28():
    config = PictureConfig(fit="aspect", resize="double", min_image_tokens=4, max_image_tokens=1280)
    assert target_sizes(40, 100, config) == [(28, 112), (28, 112)]


def test_pixels_come_out_as_bytes(inputs):
    pixels = resized(inputs.picture(), PictureConfig())
    assert pixels.dtype == np.uint8
    assert pixels.shape == (56, 56, 3)


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="min_image_tokens"):
        PictureConfig(min_image_tokens=5, max_image_tokens=4)


def test_the_released_normalisation_is_that_of_the_released_processor():
    processor = theirs.Qwen2VLImageProcessorPil()
    np.testing.assert_allclose(RELEASED.pictures.mean, processor.image_mean)
    np.testing.assert_allclose(RELEASED.pictures.std, processor.image_std)
