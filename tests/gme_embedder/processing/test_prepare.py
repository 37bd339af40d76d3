"""Prompts to tokens to packed batches: exact ids, cuts that keep the closing tokens, pictures once."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_data.items import Item
from gme_embedder.config import InputConfig
from gme_embedder.processing.prepare import Preparer

HEAD = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"


def decoded(preparer: Preparer, items, instruction=None):
    return [
        preparer.tokenizer.decode(item.ids, skip_special_tokens=False) for item in preparer.tokenise(items, instruction)
    ]


@pytest.fixture
def store(tmp_path, inputs):
    records = []
    for number in range(3):
        buffer = io.BytesIO()
        inputs.picture().save(buffer, "PNG")
        records.append(ImageRecord.from_bytes(buffer.getvalue(), source=str(number), licence="CC0"))
    write_images(tmp_path, records)
    return ImageStore([tmp_path]), sorted(record.id for record in records)


@pytest.fixture
def as_released(embedder):
    return Preparer(embedder.preparer.tokenizer, InputConfig(leading_space=False))


def test_the_prompt_is_that_of_gme(as_released, inputs):
    picture = {"image": inputs.picture(), "text": "What is this?"}
    texts = decoded(as_released, ["A text.", picture])
    head = HEAD.format("You are a helpful assistant.")
    assert texts == [
        f"{head}A text.{TAIL}",
        f"{head}<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>What is this?{TAIL}",
    ]


def test_the_instruction_replaces_the_system_text(as_released):
    assert decoded(as_released, ["x"], "Find it.") == [f"{HEAD.format('Find it.')}x{TAIL}"]


def test_our_models_read_a_space_before_the_text(embedder):
    assert decoded(embedder.preparer, ["x", ""], "Find it.") == [
        f"{HEAD.format('Find it.')} x{TAIL}",
        f"{HEAD.format('Find it.')}{TAIL}",
    ]


@pytest.mark.parametrize("text", ["plain", "  spaces", "\n\nlines", "7 digits", ""])
def test_ids_are_those_of_the_whole_prompt(embedder, text):
    preparer = embedder.preparer
    whole = HEAD.format("You are a helpful assistant.") + (text and f" {text}") + TAIL
    assert preparer.tokenise([text])[0].ids.tolist() == preparer.tokenizer.encode(whole, add_special_tokens=False).ids


def test_long_texts_lose_their_end_but_neither_picture_nor_closing_tokens(embedder, inputs):
    preparer = Preparer(embedder.preparer.tokenizer, InputConfig(max_tokens=48))
    long = {"image": inputs.picture(), "text": inputs.text(100)}
    ids = preparer.tokenise([long])[0].ids
    text = preparer.tokenizer.decode(ids, skip_special_tokens=False)
    assert len(ids) == 48
    assert text.count("<|image_pad|>") == 4
    assert text.endswith(TAIL)


def test_a_picture_that_can_not_fit_is_refused(embedder, inputs):
    preparer = Preparer(embedder.preparer.tokenizer, InputConfig(max_tokens=32))
    with pytest.raises(FoundryError, match="16 visual tokens"):
        preparer.prepare([{"image": inputs.picture(300, 300)}])


def test_a_picture_token_written_in_a_text_is_no_picture(embedder):
    batch = embedder.preparer.prepare(["look: <|image_pad|>", "x"])
    assert not batch.pictures
    assert len(batch.visual_indices) == 0


def test_equal_pictures_are_kept_once(embedder, store):
    images, ids = store
    items = [Item(image=ids[0]), Item(text="same flag", image=ids[0]), Item(image=ids[1])]
    batch = embedder.preparer.prepare(items, images=images)
    assert [group.patches.shape for group in batch.pictures] == [(2, 16, 588)]
    assert sorted(batch.visual_rows.tolist()) == sorted([0, 1, 2, 3] * 2 + [4, 5, 6, 7])
    assert batch.pictures[0].patches.dtype == torch.uint8


def test_the_common_prefix_is_shared_but_never_a_picture(embedder, inputs):
    preparer = embedder.preparer
    texts = preparer.prepare(["alpha", "beta gamma"])
    pictures = preparer.prepare([{"image": inputs.picture()} for _ in range(2)])
    head = len(preparer.tokenizer.encode(HEAD.format("You are a helpful assistant."), add_special_tokens=False).ids)
    assert texts.layout.prefix == head
    assert pictures.layout.prefix == head + 1  # the token that opens the picture is common, the picture is not
    assert [count for _, count in pictures.layout.groups] == [2]


def test_augmentation_sees_bytes_and_may_return_floats(embedder, store):
    images, ids = store
    seen = []

    def darker(pixels):
        seen.append((pixels.dtype, tuple(pixels.shape)))
        return pixels.float() * 0.5

    plain = embedder.preparer.prepare([Item(image=id_) for id_ in ids], images=images)
    dark = embedder.preparer.prepare([Item(image=id_) for id_ in ids], images=images, augment=darker)
    assert seen == [(torch.uint8, (3, 56, 56, 3))]
    torch.testing.assert_close(dark.pictures[0].patches, plain.pictures[0].patches.float() * 0.5)


def test_preparers_and_batches_can_be_pickled(embedder, inputs):
    items = ["text", {"image": inputs.picture(), "text": "t"}]
    copy = pickle.loads(pickle.dumps(embedder.preparer))  # noqa: S301 - our own bytes
    batch = pickle.loads(pickle.dumps(copy.prepare(items)))  # noqa: S301 - our own bytes
    expected = embedder.preparer.prepare(items)
    assert torch.equal(batch.tokens, expected.tokens)
    assert torch.equal(batch.pictures[0].patches, expected.pictures[0].patches)


def test_nothing_makes_an_empty_batch(embedder):
    batch = embedder.preparer.prepare([])
    assert len(batch) == 0
    assert embedder.model.embed(batch).shape == (0, embedder.dimension)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "text, an image, or both"),
        ({"text": None, "image": None}, "text, an image, or both"),
        ({"txt": "x"}, "Did you mean 'text'"),
        ({"text": 3}, "must be a string, found int"),
        ({"image": 3}, "found int"),
        ({"image": "no/such/flag.png"}, "Picture not found: no/such/flag.png"),
        ({"image": b"not a picture"}, "not a readable picture"),
        (3, "found int"),
        (Item(image="0" * 64), "no image store"),
    ],
)
def test_bad_items_say_what_is_wrong(embedder, item, message):
    with pytest.raises(FoundryError, match=message):
        embedder.preparer.prepare([item])


def test_an_error_counts_the_items_from_the_first(embedder):
    items = ["fine"] * 2050
    items[2049] = {"image": "no/such.png"}
    with pytest.raises(FoundryError, match=r"Item 2049: Picture not found: no/such\.png"):
        embedder.encode(items)


def test_ten_megabytes_of_text_are_cut_as_any_other(embedder):
    words = "the capital of Chile " * 500_000
    whole, beginning = (embedder.preparer.tokenise([text])[0].ids for text in (words, words[:100_000]))
    assert np.array_equal(whole, beginning)


def test_pictures_of_all_modes_have_a_defined_result(embedder, inputs, tmp_path):
    grey = inputs.picture().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames = [inputs.picture(), inputs.picture()]
    deep.save(tmp_path / "deep.png")
    grey.convert("RGB").save(tmp_path / "grey.png")
    frames[0].convert("P").save(tmp_path / "moving.gif", save_all=True, append_images=[frames[1].convert("P")])
    frames[0].convert("P").save(tmp_path / "still.gif")
    inputs.picture().convert("CMYK").save(tmp_path / "print.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:-2000])

    def pixels(name):
        return embedder.preparer.tokenise([{"image": tmp_path / name}])[0].pixels

    np.testing.assert_array_equal(pixels("deep.png"), pixels("grey.png"))
    np.testing.assert_array_equal(pixels("moving.gif"), pixels("still.gif"))  # the first frame
    assert pixels("print.jpg").std() > 0
    with pytest.raises(FoundryError, match=r"Item 0: .*cut\.png: the picture is damaged"):
        pixels("cut.png")


def test_an_unknown_image_id_is_named(embedder, store):
    with pytest.raises(FoundryError, match="0" * 64):
        embedder.preparer.prepare([Item(image="0" * 64)], images=store[0])


def test_a_string_is_text_even_if_it_is_a_path(embedder, tmp_path, inputs):
    path = tmp_path / "flag.png"
    inputs.picture().save(path)
    assert embedder.preparer.tokenise([str(path)])[0].pixels is None
    given = [embedder.preparer.tokenise([{"image": image}])[0].pixels for image in (path, str(path), path.read_bytes())]
    assert np.array_equal(given[0], given[1])
    assert np.array_equal(given[0], given[2])


def test_transparency_is_laid_on_white(embedder, inputs):
    clear = inputs.picture().convert("RGBA")
    clear.putalpha(0)
    assert (embedder.preparer.tokenise([{"image": clear}])[0].pixels == 255).all()
