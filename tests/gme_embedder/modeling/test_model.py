"""What is trained, and the tower on its own."""

from __future__ import annotations

import pytest
import torch


def test_parts_are_all_parameters_but_the_token_table(embedder):
    model = embedder.model
    parts = {id(p) for p in model.text_parameters()} | {id(p) for p in model.vision_parameters()}
    table = model.language.embed_tokens.weight
    assert {id(p) for p in model.parameters()} - parts == {id(table)}
    assert not table.requires_grad


@torch.no_grad()
def test_the_tower_alone_gives_the_tokens_in_the_order_of_the_items(embedder, inputs):
    pictures = [{"image": inputs.picture()} for _ in range(3)]
    model, preparer = embedder.model, embedder.preparer
    together = model(preparer.prepare(pictures), tower_only=True)
    assert together.shape == (3, 4 * embedder.dimension)
    alone = torch.cat([model.tower(preparer.prepare([picture])) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_the_tower_alone_repeats_a_picture_that_comes_twice(embedder, inputs):
    picture = {"image": inputs.picture()}
    vectors = embedder.model.tower(embedder.preparer.prepare([picture, picture]))
    torch.testing.assert_close(vectors[0], vectors[1])


def test_the_tower_alone_refuses_texts_and_unequal_pictures(embedder, inputs):
    preparer = embedder.preparer
    for items in (["text"], [{"image": inputs.picture()}, {"image": inputs.picture(300, 300)}]):
        with pytest.raises(ValueError, match="equal size"):
            embedder.model.tower(preparer.prepare(items))
