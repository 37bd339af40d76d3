"""The packed forward equals the plain, padded Hugging Face forward: values, gradients, both kinds of positions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gme_embedder.config import InputConfig, ModelConfig, PictureConfig
from gme_embedder.embedder import Embedder
from gme_embedder.modeling import attention
from gme_embedder.processing.picture import patchify
from gme_embedder.processing.prepare import Preparer

TOLERANCE = 1e-5


def plain(embedder: Embedder, preparer: Preparer, items, instruction=None, *, mrope=False):
    """Right-padded batch through transformers' own forward of tower and language part, last real token pooled."""
    qwen = embedder.model.qwen
    tokenised = preparer.tokenise(items, instruction)
    longest = max(len(item.ids) for item in tokenised)
    ids = torch.tensor([[*item.ids, *[0] * (longest - len(item.ids))] for item in tokenised])
    mask = torch.tensor([[1] * len(item.ids) + [0] * (longest - len(item.ids)) for item in tokenised])
    embeds = qwen.language_model.embed_tokens(ids).clone()
    kinds, grids = torch.zeros_like(ids), []
    for row, item in enumerate(tokenised):
        if item.pixels is None:
            continue
        rows, columns = item.token_grid
        grids.append([1, 2 * rows, 2 * columns])
        span = slice(item.image_start, item.image_start + rows * columns)
        kinds[row, span] = 1
        embeds[row, span] = qwen.visual(_frames(embedder, item.pixels), torch.tensor(grids[-1:])).pooler_output
    positions = torch.arange(longest).expand(3, len(items), -1)
    if mrope:
        positions, _ = qwen.get_rope_index(ids, kinds, image_grid_thw=torch.tensor(grids), attention_mask=mask)
    states = qwen.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return functional.normalize(states[torch.arange(len(items)), mask.sum(1) - 1], dim=-1)


def _frames(embedder: Embedder, pixels):
    """Normalised patches as the released processor makes them: the picture twice, for two frames. [p, 1176]."""
    normal = (torch.from_numpy(pixels.copy()) / 255 - embedder.model.mean) / embedder.model.std
    patches = patchify(normal[None], 14)[0].view(-1, 196, 3).mT  # [p, 3, 196]
    return patches[:, :, None].expand(-1, 3, 2, 196).flatten(1)


def mixtures(inputs):
    text = [inputs.text(n) for n in (5, 30, 5, 12, 1)]
    pictures = [{"image": inputs.picture()} for _ in range(4)]
    fused = [{"image": inputs.picture(), "text": inputs.text(n)} for n in (3, 20)]
    page = {"image": inputs.picture(260, 220), "text": inputs.text(4)}
    return {
        "text": text,
        "equal texts": ["the same"] * 3,
        "pictures": pictures,
        "fused": fused,
        "mixed": [text[0], page, pictures[0], fused[0], text[1], "  leading spaces", {"text": "\n\nlines"}, fused[1]],
        "one": text[:1],
        "one picture": pictures[:1],
    }


@pytest.mark.parametrize("kind", ["text", "equal texts", "pictures", "fused", "mixed", "one", "one picture"])
@pytest.mark.parametrize("instruction", [None, "Find a passage that answers the question."])
@torch.no_grad()
def test_equals_the_padded_forward(embedder, inputs, kind, instruction):
    items = mixtures(inputs)[kind]
    found = embedder.model.embed(embedder.preparer.prepare(items, instruction))
    torch.testing.assert_close(found, plain(embedder, embedder.preparer, items, instruction), atol=TOLERANCE, rtol=0)


def test_gradients_equal_those_of_the_padded_forward(embedder, inputs):
    items, model = mixtures(inputs)["mixed"], embedder.model
    direction = torch.randn(len(items), embedder.dimension, generator=torch.Generator().manual_seed(0))
    gradients = []
    for vectors in (
        model.embed(embedder.preparer.prepare(items)),
        plain(embedder, embedder.preparer, items),
    ):
        model.zero_grad(set_to_none=True)
        (vectors * direction).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad(set_to_none=True)
    ours, theirs = gradients
    assert set(ours) == set(theirs)
    assert set(ours) == {name for name, _ in model.named_parameters()} - {"qwen.language_model.embed_tokens.weight"}
    for name, gradient in theirs.items():
        # q and k biases of the first layers have gradients that cancel to rounding noise; 1e-4 of the scale covers it
        scale = max(float(gradient.abs().max()), 1e-3)
        torch.testing.assert_close(ours[name], gradient, atol=1e-4 * scale, rtol=0, msg=name)


@torch.no_grad()
def test_mrope_equals_the_positions_of_transformers(inputs):
    settings = InputConfig(
        positions="mrope", pictures=PictureConfig(fit="aspect", min_image_tokens=4, max_image_tokens=12)
    )
    embedder = Embedder.fresh(ModelConfig(text_layers=2, inputs=settings), seed=7)
    items = [
        {"image": inputs.picture(140, 60), "text": inputs.text(9)},
        inputs.text(6),
        {"image": inputs.picture(60, 90)},
    ]
    found = embedder.model.embed(embedder.preparer.prepare(items))
    expected = plain(embedder, embedder.preparer, items, mrope=True)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert not torch.allclose(found[0], plain(embedder, embedder.preparer, items)[0], atol=1e-4)


@torch.no_grad()
def test_the_fused_kernel_for_long_sequences_gives_the_same(embedder, inputs, monkeypatch):
    items = mixtures(inputs)["mixed"]
    batch = embedder.preparer.prepare(items)
    expected = embedder.model.embed(batch)
    monkeypatch.setattr(attention, "_FUSED_FROM", 1)
    torch.testing.assert_close(embedder.model.embed(batch), expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_bfloat16_autocast_stays_close(embedder, inputs):
    batch = embedder.preparer.prepare(mixtures(inputs)["mixed"])
    exact = embedder.model.embed(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = embedder.model.embed(batch)
    assert half.dtype == torch.float32
    assert (exact * half).sum(1).min() > 0.99


@pytest.mark.parametrize("half", [False, True])
def test_vectors_are_the_same_with_gradients_and_without(embedder, inputs, half: bool):
    """A gradient cache encodes first without gradients, then with them, and takes both for one."""
    items = [{"image": inputs.picture(), "text": inputs.text(90)}, inputs.text(80), inputs.text(5)]
    batch = embedder.preparer.prepare(items)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = embedder.model.embed(batch)
        with torch.no_grad():
            again = embedder.model.embed(batch)
    assert torch.equal(found, again)
