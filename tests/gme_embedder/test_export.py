"""An exported folder gives the embedder's vectors in sentence-transformers, loads in AutoModel, and holds no code."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.random_qwen import random_qwen
from transformers import AutoModel

from gme_data.errors import FoundryError
from gme_embedder import staging
from gme_embedder.checkpoint import Settings, with_inputs
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.export import export_sentence_transformer
from gme_embedder.export_adapter import export_adapter
from gme_embedder.modeling import smollm
from gme_embedder.modeling.tiny import build_tiny
from gme_embedder.processing.prompt import VISION_TOKENS

sentence_transformers = pytest.importorskip("sentence_transformers")
TOLERANCE = 2e-6
PICTURE = Image.new("RGB", (9, 9))
ASK = "Find 🙂 a picture of it."
TEXTS = [
    "a", "", " ", "\n\n two\nlines ", "naïve 東京 🙂", "<|im_end|>", "long " * 900, "x" * 5000, "'\"{{ 1 }}\\n",
    "how is <|image_pad|> used? <|vision_start|><|image_pad|><|vision_end|>", "<|im_<|im_end|>end|><|endoftext|>", "\0",
]  # fmt: skip
FRESH = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer
{extra}
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
items = {items}
np.save(sys.argv[2], model.encode(items, prompt={prompt!r}), allow_pickle=False)
"""


@pytest.fixture(scope="module")
def tiny():
    return Embedder.fresh(ModelConfig(text_layers=2), seed=1)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "model"
    export_sentence_transformer(tiny, target, query_instruction=ASK)
    return target


@pytest.fixture(scope="module")
def model(folder):
    import gme_embedder.sentence_transformer  # noqa: F401 - registers the processor

    return load(folder)


def load(folder):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def same(found, expected):
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def mixed(inputs):
    return [
        "plain text", {"text": inputs.text(9)}, {"image": inputs.picture(60, 90)}, inputs.picture(72, 72),
        {"image": inputs.picture(300, 201), "text": "What is this?"}, {"text": "text first", "image": inputs.picture()},
        {"image": inputs.picture(), "text": inputs.text(900)}, *TEXTS,
    ]  # fmt: skip


def ours(items):
    return [{"image": item} if isinstance(item, Image.Image) else item for item in items]


@pytest.mark.parametrize("prompt", [None, ASK])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_all_kinds_of_items_in_any_batch(tiny, model, inputs, prompt, batch_size):
    items = mixed(inputs)
    same(model.encode(items, prompt=prompt, batch_size=batch_size), tiny.encode(ours(items), prompt))


def test_an_instruction_with_control_tokens(tiny, model, inputs):
    items, ask = mixed(inputs), "Find <|im_end|> and <|image_pad|>."
    same(model.encode(items, prompt=ask), tiny.encode(ours(items), ask))


@pytest.mark.parametrize(
    ("items", "prompt", "message"),
    [
        # It sorts items by their length and numbers those of a batch; so the text is shown.
        (["a", "b\ud83d"], None, r"half of a character .* in 'b\\ud83d'"),
        (["a", {"image": PICTURE}], " word" * 300, r"^The instruction of 300 tokens leaves room for 0"),
    ],
)
def test_what_the_embedder_refuses_is_refused_there(model, items, prompt, message):
    with pytest.raises(FoundryError, match=message):
        model.encode(items, prompt=prompt)


def test_an_instruction_without_room_is_not_exported(tiny, tmp_path):
    with pytest.raises(FoundryError, match="instruction of 300 tokens"):
        export_sentence_transformer(tiny, tmp_path / "model", query_instruction=" word" * 300)
    assert not (tmp_path / "model").exists()


def test_containers_at_the_processor(model):
    processor = model[0].processor
    for wrong, message in (("hello", "found one str"), ({"text": "a"}, "found one dict"), (5, "found int")):
        with pytest.raises(FoundryError, match=message):
            processor.inputs(wrong, [None])
        with pytest.raises(FoundryError, match=message):
            processor.apply_chat_template(wrong, tokenize=True)
    for instructions in ("ab", [None], [None] * 3):
        with pytest.raises(FoundryError, match="list of 2 instructions"):
            processor.inputs(["a", "b"], instructions)
    with pytest.raises(FoundryError, match="Item 1: a conversation is a list"):
        processor.apply_chat_template([[{"role": "user", "content": "a"}], ["hello"]], tokenize=True)
    with pytest.raises(FoundryError, match="Item 2: Field 'text'"):
        processor.inputs(["a", "b", {"text": 5}], ["x", "x", "y"])
    with pytest.raises(FoundryError, match="max_tokens"):
        processor.inputs(["a"], [None], max_length=8)


def test_one_item_alone_is_one_vector(tiny, model, inputs):
    picture = inputs.picture(90, 40)
    same(model.encode(picture), tiny.encode([{"image": picture}])[0])
    same(model.encode({"text": "a", "image": picture}), tiny.encode([{"text": "a", "image": picture}])[0])
    same(model.encode("a"), tiny.encode(["a"])[0])


def test_paths_and_chat_messages(tiny, model, inputs, tmp_path):
    path = tmp_path / "picture.png"
    inputs.picture(50, 70).save(path)
    expected = tiny.encode([{"image": path, "text": "a"}], ASK)
    same(model.encode([{"image": str(path), "text": "a"}], prompt=ASK), expected)
    said = [{"type": "text", "text": "a"}, {"type": "image", "image": Image.open(path)}]
    same(model.encode([[{"role": "system", "content": ASK}, {"role": "user", "content": said}]]), expected)


def test_queries_have_the_instruction_and_documents_have_none(tiny, model):
    same(model.encode_query(["a"]), tiny.encode(["a"], ASK))
    same(model.encode_document(["a"]), tiny.encode(["a"]))
    same(model.encode(["a"], prompt_name="query"), tiny.encode(["a"], ASK))
    assert model.similarity_fn_name == "cosine"
    assert model.get_embedding_dimension() == tiny.dimension
    assert model.supports(("image", "text"))


def test_a_shorter_limit(tiny, folder, model):
    short = Embedder.load(folder, max_tokens=64)
    assert model.max_seq_length == 256
    other = load(folder)
    other.max_seq_length = 64
    same(other.encode(TEXTS), short.encode(TEXTS))


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"positions": "mrope"}, TOLERANCE),
        ({"truncate": "released"}, TOLERANCE),
        (
            {"max_tokens": 1800, "fit": "aspect", "resize": "double", "min_image_tokens": 4, "max_image_tokens": 16},
            1e-5,
        ),
        ({"default_instruction": 'Say "東京 🙂".'}, TOLERANCE),
    ],
)
def test_the_settings_go_along(tmp_path, inputs, changes, tolerance):
    qwen, tokenizer = build_tiny(ModelConfig(text_layers=1), seed=2)
    embedder = Embedder(qwen, tokenizer, with_inputs(Settings(embedding_dtype="bfloat16"), small(changes)))
    export_sentence_transformer(embedder, tmp_path / "model")
    fitting = [
        item for item in mixed(inputs)
        if changes.get("truncate") != "released" or not isinstance(item, dict) or "image" not in item
    ]  # fmt: skip
    found = load(tmp_path / "model").encode(fitting, prompt=ASK)
    np.testing.assert_allclose(found, embedder.encode(ours(fitting), ASK), atol=tolerance, rtol=0)


def small(changes):
    return ModelConfig().inputs.pictures.model_dump() | {"max_tokens": 256, **changes}


def test_a_random_model_with_the_released_inputs(tmp_path, inputs):
    embedder = random_embedder()
    export_sentence_transformer(embedder, tmp_path / "model")
    pictures = [{"image": inputs.picture(*size)} for size in ((30, 31), (480, 640), (640, 90))]
    items = [*pictures, {"image": inputs.picture(97, 203), "text": "What is this?"}, "a"]
    found = load(tmp_path / "model").encode(items)
    np.testing.assert_allclose(found, embedder.encode(items), atol=1e-5, rtol=0)


def random_embedder():
    tokenizer = smollm.tokenizer(VISION_TOKENS)
    return Embedder(random_qwen(tokenizer, 0), tokenizer, Settings())


def fresh(folder, tmp_path, items, extra="", prompt=None):
    """Vectors from a process that has imported sentence-transformers alone, and its standard error."""
    out = tmp_path / "vectors.npy"
    code = FRESH.format(items=items, extra=extra, prompt=prompt)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(out)], capture_output=True, text=True, check=False
    )
    return (np.load(out, allow_pickle=False) if done.returncode == 0 else None), done.stderr


@pytest.mark.parametrize("prompt", [pytest.param(None, marks=pytest.mark.slow), ASK])
def test_texts_need_no_import_of_ours(tiny, folder, tmp_path, prompt):
    found, error = fresh(folder, tmp_path, repr(TEXTS), "assert 'gme_embedder' not in sys.modules", prompt)
    assert found is not None, error
    same(found, tiny.encode(TEXTS, prompt))


def test_pictures_need_one_import_and_are_refused_without(tiny, folder, tmp_path, inputs):
    path = tmp_path / "picture.png"
    inputs.picture(60, 90).save(path)
    items = repr(["a", {"image": str(path)}, {"image": str(path), "text": "a"}])
    found, error = fresh(folder, tmp_path, items, "import gme_embedder.sentence_transformer")
    assert found is not None, error
    same(found, tiny.encode(["a", {"image": path}, {"image": path, "text": "a"}]))
    found, error = fresh(folder, tmp_path, items)
    assert found is None
    assert "import gme_embedder.sentence_transformer before the model is loaded" in error


def test_auto_model_reads_the_whole_folder(tiny, folder):
    loaded, report = AutoModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    ids = torch.tensor([tiny.preparer.tokenise(["a"])[0].ids])
    with torch.no_grad():
        last = loaded(input_ids=ids).last_hidden_state[:, -1]
    same(torch.nn.functional.normalize(last, dim=-1).numpy(), tiny.encode(["a"]))


def test_saved_again_by_sentence_transformers(tiny, model, inputs, tmp_path):
    model.save_pretrained(str(tmp_path / "again"), create_model_card=False)
    items = mixed(inputs)
    same(load(tmp_path / "again").encode(items), tiny.encode(ours(items)))


def test_no_code_and_no_pickle(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".jinja"}
    assert "auto_map" not in "".join(path.read_text() for path in files if path.suffix == ".json")
    types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert all(kind.startswith("sentence_transformers.") for kind in types)


@pytest.mark.parametrize("style", ["both", "old", "new"])
def test_pooling_keys_of_both_styles(folder, tmp_path, style):
    from sentence_transformers.sentence_transformer.modules import Pooling

    config = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert config["pooling_mode"] == "lasttoken"
    assert [key for key, value in config.items() if key.startswith("pooling_mode_") and value] == [
        "pooling_mode_lasttoken"
    ]
    dropped = {
        "both": lambda key: False,
        "old": "pooling_mode".__eq__,
        "new": lambda key: key.startswith("pooling_mode_"),
    }
    kept = {key: value for key, value in config.items() if not dropped[style](key)}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    assert Pooling.load(str(tmp_path)).pooling_mode == "lasttoken"


def test_the_processor_alone_feeds_a_plain_model(tiny, folder, model, inputs):
    from transformers import AutoProcessor

    processor, whole = AutoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    picture = inputs.picture(90, 60)
    said = [{"type": "image", "image": picture}, {"type": "text", "text": "a"}]
    with torch.no_grad():
        made = processor.apply_chat_template([{"role": "user", "content": said}], tokenize=True)
        last = whole(**made).last_hidden_state[:, -1]
    same(torch.nn.functional.normalize(last, dim=-1).numpy(), tiny.encode([{"image": picture, "text": "a"}]))
    with pytest.raises(FoundryError, match="apply_chat_template"):
        processor(text=["a"], images=[picture])


def test_bad_items_are_named(model, inputs):
    two = [{"type": "image", "image": inputs.picture()}] * 2
    with pytest.raises(FoundryError, match="Item 0: more than one image"):
        model.encode([[{"role": "user", "content": two}]])
    with pytest.raises(FoundryError, match="Item 0: a conversation is"):
        model.encode([[{"role": "assistant", "content": "a"}]])
    with pytest.raises(FoundryError, match="Picture not found"):
        model.encode({"image": "nowhere.png"})


def test_a_folder_that_differs_is_not_left_behind(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "MIN_COSINE", 1.1)
    with pytest.raises(FoundryError, match="other vectors"):
        export_sentence_transformer(tiny, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_and_half_precision_are_refused(tiny, folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FoundryError, match="exists already"):
        export_sentence_transformer(tiny, folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FoundryError, match="float32"):
        export_sentence_transformer(Embedder.load(folder, dtype="bfloat16"), tmp_path / "half")


def tuned(folder, rank, parts=("q_proj", "down_proj"), *, tower=False):
    """The model of `folder` after a random update of `rank` of some layers, and perhaps of the tower."""
    embedder = Embedder.load(folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, module in embedder.model.language.named_modules():
            if name.endswith(parts):
                out, width = module.weight.shape
                module.weight += 0.05 * torch.randn(out, rank) @ torch.randn(rank, width)
        if tower:
            embedder.model.qwen.visual.merger.ln_q.weight += 0.5
            embedder.model.language.norm.weight *= 1.5
    return embedder


@pytest.mark.parametrize("tower", [False, True])
def test_adapters_of_a_base(tiny, folder, tmp_path, inputs, tower):
    embedder = tuned(folder, 4, tower=tower)
    export_adapter(embedder, folder, tmp_path / "adapter", rank=4)
    items = ours(mixed(inputs))
    expected = embedder.encode(items)
    assert np.abs(expected - tiny.encode(items)).max() > 0.01
    np.testing.assert_allclose(Embedder.load(tmp_path / "adapter").encode(items), expected, atol=1e-5)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {min(weight.shape) for weight in weights.values()} == {4}
    assert (tmp_path / "adapter" / "base").exists() == tower
    moved = (tmp_path / "adapter").rename(tmp_path / "moved")
    np.testing.assert_allclose(Embedder.load(moved).encode(items), expected, atol=1e-5)


def test_peft_reads_the_adapters(folder, tmp_path):
    peft = pytest.importorskip("peft")
    embedder = tuned(folder, 2)
    export_adapter(embedder, folder, tmp_path / "adapter", rank=2)
    adapted = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    for name, weight in embedder.model.qwen.named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), weight, atol=1e-5, rtol=0)


def test_adapters_that_cannot_be(tiny, folder, tmp_path):
    with pytest.raises(FoundryError, match="more than adapters of rank 2"):
        export_adapter(tuned(folder, 4), folder, tmp_path / "adapter", rank=2)
    with pytest.raises(FoundryError, match="nothing to adapt"):
        export_adapter(tiny, folder, tmp_path / "adapter", rank=2)
    with pytest.raises(FoundryError, match="built differently"):
        export_adapter(random_embedder(), folder, tmp_path / "adapter", rank=2)
    assert not list(tmp_path.iterdir())
