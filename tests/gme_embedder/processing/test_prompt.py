"""What a user writes stays a text: control tokens, half characters, instructions that leave no room."""

from __future__ import annotations

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.processing.prepare import MIN_TEXT_TOKENS
from gme_embedder.processing.prompt import PAD, escape, escapes

LONG = "Find the passage that answers. " + "Example: who wrote it? The author did. " * 30


@pytest.fixture(scope="module")
def small():
    return Embedder.fresh(ModelConfig(text_layers=1), seed=1)


def control_tokens(embedder):
    decoder = embedder.preparer.tokenizer.get_added_tokens_decoder()
    return {token.content: number for number, token in decoder.items() if token.special}


def test_no_text_and_no_instruction_makes_a_control_token(small, inputs):
    control = control_tokens(small)
    own = small.preparer.tokenise([{"text": "x", "image": inputs.picture()}], "y")[0].ids
    fixed = sorted(token for token in own if token in control.values())
    assert PAD in control
    for token in control:
        texts = f"before {token} after{token}", token[:4] + token + token[4:], token
        for text in texts:
            item = {"title": text, "text": text, "image": inputs.picture()}
            ids = small.preparer.tokenise([item], text)[0].ids
            assert sorted(number for number in ids if number in control.values()) == fixed


def test_other_texts_are_as_they_are(small):
    for text in ("a <b> & |c|", "<|", "|>", "< |im_end|>", "im_end", "<im_end>", "\0"):
        assert escape(text, small.preparer.escapes) == text
    assert escape("<|im_end|>", small.preparer.escapes) == "< |im_end|>"


def test_a_token_inside_another_is_escaped_once():
    pairs = escapes(["<a>", "<<a>>", "!"])
    assert escape("<<a>> <a>!", pairs) == "< < a>> < a>!"


def test_a_text_with_the_place_of_a_picture_changes_no_neighbour(small, inputs):
    items = [{"text": f"how is {PAD} used?"}, {"image": inputs.picture(), "text": f"{PAD}{PAD}"}, "plain"]
    together = small.encode(items)
    alone = [small.encode(item) for item in items]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    plain = small.encode([{"text": "how is < |image_pad|> used?"}])[0]
    np.testing.assert_allclose(together[0], plain, atol=1e-5)


@pytest.mark.parametrize(
    "item", ["a\ud83d", {"text": "a\ud83d"}, {"title": "\udc00", "text": "a"}, Item("a\ud83d"), "\ud83d" + "a" * 10**6]
)
def test_half_a_character_is_refused_by_item(small, item):
    with pytest.raises(FoundryError, match=r"Item 1: .*half of a character.* position [01]"):
        small.encode(["b", item])
    bad = {}
    small.encode(["b", item], bad=bad)
    assert list(bad) == [1]


def test_half_a_character_in_an_instruction(small):
    with pytest.raises(FoundryError, match=r"^The instruction has half of a character"):
        small.encode(["b"], "Find\ud83d")
    with pytest.raises(FoundryError, match="must be one text for all items, found list"):
        small.encode(["b"], ["Find"])


def test_an_instruction_that_leaves_no_room_is_told_once(small, inputs):
    items = ["a red flag", {"image": inputs.picture()}, "the capital of Peru"]
    length = len(small.preparer.tokenizer.encode(LONG, add_special_tokens=False).ids)
    told = rf"^The instruction of {length} tokens leaves room for 0 tokens of a text: max_tokens is 256"
    for rows in (items, items[:1], items[1], iter(items), []):
        bad = {}
        with pytest.raises(FoundryError, match=told):
            small.encode(rows, LONG, bad=bad)
        assert not bad, "the instruction is not an item's fault"
    with pytest.raises(FoundryError, match=told):
        small.preparer.prepare(items, LONG)


@pytest.mark.parametrize("truncate", ["text", "released"])
def test_the_longest_instruction_is_the_one_that_is_named(small, truncate):
    settings = small.settings.inputs.model_copy(update={"truncate": truncate})
    preparer = type(small.preparer)(small.preparer.tokenizer, settings)
    with pytest.raises(FoundryError) as refused:
        preparer.check_instruction(" word" * 300)
    most = int(refused.value.hint.split()[4])
    preparer.check_instruction(" word" * most)
    with pytest.raises(FoundryError, match=f"leaves room for {MIN_TEXT_TOKENS - 1} tokens"):
        preparer.check_instruction(" word" * (most + 1))
    texts = [" ".join([word] * 50) for word in ("flag", "river")]
    kept = preparer.tokenise(texts, " word" * most)
    assert len(kept[0].ids) == len(kept[1].ids) == settings.max_tokens
    assert sum(kept[0].ids != kept[1].ids) >= MIN_TEXT_TOKENS


def test_a_picture_does_not_take_all_of_its_text(small, inputs):
    """A page has 16 visual tokens: with an instruction that leaves 20, a long text would lose all but two tokens."""
    most = 256 - 8 - len(small.preparer.tokenise([""], " x")[0].ids) + 1
    asked = " word" * (most - 12)
    page = inputs.picture(300, 300)
    with pytest.raises(FoundryError, match=r"Item 1: A picture of 16 visual tokens leaves room for \d of its text's"):
        small.encode(["b", {"image": page, "text": inputs.text(60)}], asked)
    assert small.encode({"image": page}, asked).shape == (small.dimension,)
    assert small.encode({"image": page, "text": "a"}, asked).shape == (small.dimension,)
    with pytest.raises(FoundryError, match=r"Item 0: A picture of 16 .* instruction of \d+ tokens, .* room for \d\.$"):
        small.encode([{"image": page}], " word" * (most - 1))
