"""Encode: any mixture and order; the vectors of an item do not depend on its company; folders round-trip."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED, ModelConfig
from gme_embedder.embedder import Embedder, batches_by_tokens
from gme_embedder.modeling import model
from gme_embedder.processing.batch import pack


@pytest.fixture
def items(inputs):
    made = []
    for number in range(9):
        made += [inputs.text(3 + 4 * number), {"image": inputs.picture()}]
    return [*made, {"image": inputs.picture(300, 200), "text": inputs.text(5)}]


@pytest.fixture(scope="module")
def folder(embedder, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    embedder.save(path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_vectors_are_normal_and_independent_of_company(embedder, items):
    vectors = embedder.encode(items)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.encode([item]) for item in items])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    np.testing.assert_allclose(embedder.encode(items, batch_tokens=60), vectors, atol=1e-5)
    np.testing.assert_allclose(embedder.encode(items[::-1])[::-1], vectors, atol=1e-5)


def test_the_instruction_changes_the_vectors(embedder):
    default, other = embedder.encode(["Chile"]), embedder.encode(["Chile"], "Find the flag of the place.")
    assert float((default * other).sum()) < 0.999


def test_nothing_gives_an_empty_array(embedder):
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_batches_hold_their_budget_and_every_row_once(embedder, items):
    tokenised = embedder.preparer.tokenise(items)
    batches = list(batches_by_tokens(tokenised, 100))
    assert sorted(row for batch in batches for row in batch) == list(range(len(items)))
    computed = [len(pack([tokenised[row] for row in batch], "sequential").tokens) for batch in batches]
    assert all(len(batch) == 1 or tokens <= 100 for batch, tokens in zip(batches, computed, strict=True))
    assert max(computed) > 90


def test_the_prompt_is_computed_once_for_all_batches_of_a_call(embedder, inputs, monkeypatch):
    calls = []
    states = model.prefix_states
    monkeypatch.setattr(model, "prefix_states", lambda *given: calls.append(len(given[1])) or states(*given))
    texts = [f"{'abcdefghij'[n % 10]} {inputs.text(8)}" for n in range(60)]
    embedder.encode(texts, "Find a passage that answers.", batch_tokens=200)
    assert calls == [
        embedder.preparer.tokenise_prompts([texts[0]], "Find a passage that answers.")[0].item.image_start - 1
    ]


@pytest.mark.parametrize("kind", ["documents", "queries", "pictures", "mixture", "one", "long and short"])
def test_no_token_is_computed_that_is_not_there(embedder, inputs, items, kind):
    """Computed / real tokens, the count that padding spoils: at most 1.02 on every workload."""
    workload = {
        "documents": [inputs.text(5 + 7 * n % 90) for n in range(60)],
        "queries": [inputs.text(1 + n % 9) for n in range(60)],
        "pictures": [{"image": inputs.picture(60 + n, 60)} for n in range(12)],
        "mixture": items,
        "one": ["one"],
        "long and short": [inputs.text(200), "a", inputs.text(100)],
    }[kind]
    tokenised = embedder.preparer.tokenise(workload)
    batches = batches_by_tokens(tokenised, embedder.batch_tokens)
    computed = sum(len(pack([tokenised[row] for row in rows], "sequential").tokens) for rows in batches)
    assert computed <= 1.02 * sum(len(item.ids) for item in tokenised)


def test_a_damaged_picture_among_many_is_named_or_noted(embedder, items, tmp_path):
    items[1]["image"].save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-200])
    broken = [*items[:3], {"image": tmp_path / "cut.png"}, *items[3:], {"texts": "a"}]
    with pytest.raises(FoundryError, match=r"Item 20: Unknown field"):
        embedder.encode(broken)
    with pytest.raises(FoundryError, match=r"Item 3: .*cut\.png.*damaged"):
        embedder.encode(broken[:-1], batch_tokens=50)
    bad: dict[int, str] = {}
    vectors = embedder.encode(broken, bad=bad)
    assert sorted(bad) == [3, 20]
    np.testing.assert_allclose(np.delete(vectors, [3, 20], axis=0), embedder.encode(items), atol=1e-5)
    assert not vectors[[3, 20]].any()


def test_a_folder_gives_the_same_vectors_and_the_same_bytes(embedder, folder, items, tmp_path):
    loaded = Embedder.load(folder)
    assert np.array_equal(loaded.encode(items), embedder.encode(items))
    loaded.save(tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_frozen_table_has_its_own_shard(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    table = index.pop("language_model.embed_tokens.weight")
    assert table not in index.values()
    assert load_file(folder / table)["language_model.embed_tokens.weight"].dtype == torch.bfloat16


def test_bfloat16_stays_close(folder, embedder, items):
    half = Embedder.load(folder, dtype="bfloat16").encode(items)
    assert half.dtype == np.float32
    assert (half * embedder.encode(items)).sum(1).min() > 0.99


def test_a_folder_without_settings_is_read_as_released(copied):
    (copied / "gme.json").unlink()
    assert Embedder.load(copied, inputs="gme").settings.inputs == RELEASED


def test_no_model_folder(tmp_path):
    with pytest.raises(FoundryError, match=r"No model folder '.*nowhere'"):
        Embedder.load(tmp_path / "nowhere")


def test_a_damaged_shard_is_reported(copied):
    shard = copied / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(FoundryError, match="can't be read"):
        Embedder.load(copied)


def test_missing_and_unknown_weights_are_listed(copied):
    shard = copied / "model-00003-of-00003.safetensors"
    weights = load_file(shard)
    weights["visual.extra.weight"] = weights.pop("visual.merger.ln_q.weight")
    save_file(weights, shard, metadata={"format": "pt"})
    index = copied / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("visual.merger.ln_q.weight", "visual.extra.weight"))
    with pytest.raises(FoundryError, match=r"missing: visual\.merger\.ln_q\.weight; unknown: visual\.extra\.weight"):
        Embedder.load(copied)


def test_weights_that_are_not_finite_are_named(copied):
    shard = copied / "model-00003-of-00003.safetensors"
    weights = load_file(shard)
    weights["visual.merger.ln_q.weight"][0] = float("nan")
    save_file(weights, shard, metadata={"format": "pt"})
    with pytest.raises(FoundryError, match=r"not finite: visual\.merger\.ln_q\.weight"):
        Embedder.load(copied)


def test_a_typo_in_the_settings_is_reported(copied):
    path = copied / "gme.json"
    path.write_text(path.read_text().replace("max_tokens", "max_token"))
    with pytest.raises(FoundryError, match="Did you mean 'max_tokens'"):
        Embedder.load(copied)


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(FoundryError, match="float16x"):
        Embedder.load(folder, dtype="float16x")


def test_adapters_on_the_language_part_run_through_the_packed_forward(items):
    peft = pytest.importorskip("peft")
    adapted = Embedder.fresh(ModelConfig(text_layers=2), seed=7)
    before = adapted.encode(items)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(settings, adapted.model.language)
    assert not np.allclose(adapted.encode(items), before, atol=1e-3)
