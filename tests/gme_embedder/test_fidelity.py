"""The embedder gives the vectors of the released code, on random Qwen2-VL models, for every kind of item."""

from __future__ import annotations

import pytest
import torch
from support.random_qwen import random_qwen
from support.released import Released
from transformers import PreTrainedTokenizerFast

from gme_embedder.checkpoint import Settings, with_inputs
from gme_embedder.embedder import Embedder
from gme_embedder.modeling import smollm
from gme_embedder.processing.prompt import END, VISION_TOKENS

TOLERANCE = 1e-5
SIZES = [
    (28, 28), (1, 1), (3, 90), (30, 31), (56, 84), (64, 64), (72, 72), (100, 41), (97, 203), (224, 224),
    (300, 200), (201, 299), (336, 336), (480, 640), (640, 480), (640, 90), (75, 900), (800, 799), (700, 1400),
    (14, 1400),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return smollm.tokenizer(VISION_TOKENS)


@pytest.fixture(scope="module", params=[0, 1])
def qwen(request, tokenizer):
    return random_qwen(tokenizer, request.param)


def both(qwen, tokenizer, items, instruction=None, *, inputs=None, **released):
    """Vectors of the embedder, and of the released code."""
    embedder = Embedder(qwen, tokenizer, with_inputs(Settings(), inputs or {}))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END)
    reference = Released(qwen, wrapped, **released)
    expected = reference.encode(items, instruction) if instruction else reference.encode(items)
    return torch.from_numpy(embedder.encode(items, instruction)), expected


def same(pair):
    torch.testing.assert_close(*pair, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("instruction", [None, "Find an image that matches the given text."])
def test_texts(qwen, tokenizer, inputs, instruction):
    texts = [
        "",
        " ",
        "a",
        "\n\n two lines",
        "naïve 東京 🙂",
        "<im_end> |im_end|",
        *(inputs.text(n) for n in (1, 2, 40, 300)),
    ]
    same(both(qwen, tokenizer, [{"text": text} for text in texts], instruction))


def test_control_tokens_in_a_text_are_text(qwen, tokenizer):
    """The one departure: in the released code such a text closes its own turn, or asks for a picture's place."""
    texts = ["ends <|im_end|> here", "used like <|im_start|>"]
    escaped = [{"text": text.replace("<|", "< |")} for text in texts]
    found, _ = both(qwen, tokenizer, [{"text": text} for text in texts], "Find <|endoftext|> it.")
    same((found, both(qwen, tokenizer, escaped, "Find < |endoftext|> it.")[1]))


def test_a_batch_of_257(qwen, tokenizer, inputs):
    same(both(qwen, tokenizer, [{"text": inputs.text(1 + n % 17)} for n in range(257)]))


def test_pictures_of_twenty_shapes(qwen, tokenizer, inputs):
    for size in SIZES:
        same(both(qwen, tokenizer, [{"image": inputs.picture(*size)}]))


@pytest.mark.parametrize("positions", ["sequential", "mrope"])
@pytest.mark.parametrize("resize", ["double", "once"])
def test_mixtures_with_the_limits_of_the_benchmark_runs(qwen, tokenizer, inputs, positions, resize):
    items = [
        {"image": inputs.picture(300, 201), "text": "What is this?"},
        {"text": inputs.text(9)},
        {"image": inputs.picture(57, 90)},
        {"image": inputs.picture(40, 40), "text": inputs.text(60)},
    ]
    settings = {"min_image_tokens": 4, "positions": positions, "resize": resize}
    released = {"min_tokens": 4, "mrope": positions == "mrope", "double": resize == "double"}
    same(both(qwen, tokenizer, items, inputs=settings, **released))


@pytest.mark.parametrize("truncate", ["text", "released"])
def test_what_is_too_long_is_cut(qwen, tokenizer, inputs, truncate):
    long = inputs.text(3000)
    items = [{"text": long}, {"image": inputs.picture(), "text": long}, {"text": "short"}]
    same(both(qwen, tokenizer, items, inputs={"truncate": truncate}, keep_closing=truncate == "text"))
    kept, lost = (both(qwen, tokenizer, items[:1], inputs={"truncate": cut})[0] for cut in ("text", "released"))
    assert not torch.allclose(kept, lost, atol=1e-3)


def test_a_title_goes_before_the_text(qwen, tokenizer):
    found, _ = both(qwen, tokenizer, [{"title": "Chile", "text": "A country."}])
    same((found, both(qwen, tokenizer, [{"text": "Chile A country."}])[1]))
