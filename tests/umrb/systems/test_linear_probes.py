"""Linear probes on frozen encoders: the loss against a plain one, what they learn, and what they are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_data.items import Item
from umrb.config import LinearProbeConfig
from umrb.systems import linear_probes
from umrb.systems.base import Encoder
from umrb.systems.linear_probes import train_linear_probes

CONFIG = LinearProbeConfig(steps=150, batch_size=16, dimension=32)


@pytest.fixture(scope="module")
def encoder(corpus: Path) -> Encoder:
    return train_linear_probes(corpus, CONFIG)


def test_the_loss_is_the_plain_one() -> None:
    draws = torch.Generator().manual_seed(0)
    features, weight = torch.randn(6, 5, generator=draws), torch.randn(5, 4, generator=draws)
    batch = torch.tensor([[0, 1, 7], [2, 3, 8], [4, 5, 7]])  # the first and the last are of one entity
    unit = [row / row.norm() for row in features @ weight]

    def expected_loss(row: int, query_side: int, positive_side: int) -> float:
        among = [n for n in range(3) if n == row or batch[n, 2] != batch[row, 2]]
        logits = torch.stack([unit[batch[row, query_side]] @ unit[batch[n, positive_side]] / 0.05 for n in among])
        return float(torch.logsumexp(logits, 0) - logits[among.index(row)])

    plain = np.mean([(expected_loss(row, 0, 1) + expected_loss(row, 1, 0)) / 2 for row in range(3)])
    assert float(linear_probes._contrastive_loss(features, batch, weight, 0.05)) == pytest.approx(plain, rel=1e-5)


def test_words_find_the_pictures_they_were_shown_with(encoder: Encoder, corpus: Path) -> None:
    examples = [
        example for example in read_examples(corpus / "examples" / "train") if example.source == "pictograph-name"
    ]
    images = ImageStore([corpus / "images"])
    words = encoder.encode([example.query for example in examples], "not read", images)
    pictures = encoder.encode([example.positive for example in examples], None, images)
    assert (words.dtype, words.shape) == (np.float32, (len(examples), CONFIG.dimension))
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, rtol=1e-5)
    assert ((words @ pictures.T).argmax(1) == np.arange(len(examples))).mean() > 0.9


def test_the_same_training_is_the_same_encoder(encoder: Encoder, corpus: Path) -> None:
    assert train_linear_probes(corpus, CONFIG).digest == encoder.digest
    assert train_linear_probes(corpus, CONFIG.model_copy(update={"seed": 1})).digest != encoder.digest


def test_texts_need_no_pictures(encoder: Encoder) -> None:
    assert encoder.encode([Item("red")], None, None).shape == (1, CONFIG.dimension)


def test_nothing_to_learn_from(corpus: Path) -> None:
    with pytest.raises(FoundryError, match="no training examples between single pictures and texts of flags") as caught:
        train_linear_probes(corpus, LinearProbeConfig(sources=("flags",)))
    assert "baselines.linear_probes.sources" in str(caught.value.hint)
