"""What a model folder says of itself decides whether its inputs are made as GME's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_embedder.config import RELEASED, ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.family import read_family, require_gme
from gme_embedder.model_files.locate import locate
from gme_embedder.sentence_transformer import GmeProcessor

QWEN = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
POOLED = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
AUTO_MAP = {"AutoModel": "modeling_gme_qwen2vl.GmeQwen2VL", "AutoConfig": "modeling_gme_qwen2vl.GmeQwen2VLConfig"}
PROMPTS = {"prompts": {"query": "Represent the user's input.", "document": ""}}

SILENT = {
    "Qwen2-VL": {"config.json": QWEN, "preprocessor_config.json": {"processor_class": "Qwen2VLProcessor"}},
    "Qwen2.5-VL": {"config.json": {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}},
    "Qwen3-VL": {"config.json": {"architectures": ["Qwen3VLModel"], "_name_or_path": "Qwen/Qwen3-VL-2B-Instruct"}},
    "no architecture": {"config.json": {"model_type": "qwen2_vl"}},
    "prompts that say nothing": {"config.json": QWEN, "config_sentence_transformers.json": {"prompts": {"query": ""}}},
}
GME = {
    "its code": {"config.json": {**QWEN, "auto_map": AUTO_MAP}, "modules.json": POOLED},
    "its class": {"config.json": {"architectures": ["GmeQwen2VL"]}, "config_sentence_transformers.json": PROMPTS},
    "its name": {"config.json": {**QWEN, "_name_or_path": "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"}},
    "its script": {"config.json": QWEN, "gme_inference.py": {}},
    "our settings": {"config.json": QWEN, "modules.json": POOLED, "gme.json": {}},
}
OTHERS = {
    "code": ({"config.json": {**QWEN, "auto_map": {"AutoModel": "modeling.MMEBModel"}}}, "auto_map modeling.MMEBModel"),
    "code of a hub": ({"config.json": {**QWEN, "auto_map": {"AutoModel": "a/b--x.Qwen2VLModel"}}}, "auto_map a/b--x"),
    "class": ({"config.json": {"architectures": ["ColQwen2"]}}, "architectures ColQwen2"),
    "processor": (
        {"config.json": QWEN, "preprocessor_config.json": {"processor_class": "ColQwen2Processor"}},
        "processor_class ColQwen2Processor",
    ),
    "modules": ({"config.json": QWEN, "modules.json": POOLED}, r"modules\.json: sentence_transformers\.models\.Tra"),
    "prompts": ({"config.json": QWEN, "config_sentence_transformers.json": PROMPTS}, "Represent the user's input"),
    "name": ({"config.json": {**QWEN, "_name_or_path": "Qwen/Qwen3-VL-Embedding-2B"}}, "Qwen/Qwen3-VL-Embedding-2B"),
    "VLM2Vec": ({"config.json": {**QWEN, "_name_or_path": "TIGER-Lab/VLM2Vec-Qwen2VL-2B"}}, "VLM2Vec"),
    "both": (
        {"config.json": {"architectures": ["ColQwen2"], "_name_or_path": "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"}},
        "ColQwen2",
    ),
}


def written(folder: Path, files: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("case", SILENT)
def test_a_base_that_says_nothing_needs_a_word(tmp_path, case):
    folder = written(tmp_path / "model", SILENT[case])
    with pytest.raises(FoundryError, match="does not say how its inputs are made") as refused:
        require_gme(folder)
    assert "--inputs gme" in refused.value.hint
    assert require_gme(folder, "gme") == "as chosen by inputs gme"
    with pytest.raises(FoundryError, match="Unknown inputs 'vlm2vec'"):
        require_gme(folder, "vlm2vec")


@pytest.mark.parametrize("case", GME)
def test_models_of_gme_say_so(tmp_path, case):
    folder = written(tmp_path / "model", GME[case])
    assert require_gme(folder) == require_gme(folder, "gme") != "as chosen by inputs gme"


@pytest.mark.parametrize("case", OTHERS)
def test_models_of_another_family_are_refused_whatever_is_asked_for(tmp_path, case):
    files, message = OTHERS[case]
    folder = written(tmp_path / "model", files)
    for inputs in (None, "gme"):
        with pytest.raises(FoundryError, match=f"not a GME model: .*{message}"):
            require_gme(folder, inputs)


@pytest.mark.parametrize(
    ("name", "is_gme"),
    [
        ("gme-Qwen2-VL-7B-Instruct", True), ("Qwen3-VL-Embedding-8B", False), ("vlm2vec-full", False),
        ("colqwen2-v1.0-merged", False), ("Qwen2-VL-2B-Instruct", None), ("embed", None), ("model-embedder", None),
        ("models--Qwen--Qwen3-VL-Embedding-2B/snapshots/0123", False),
        ("models--someone--a-multimodal-embedder/snapshots/0123", None),
        ("models--someone--universal-embedding/snapshots/0123", False),
        ("models--Alibaba-NLP--gme-Qwen2-VL-2B-Instruct/snapshots/0123", True),
        ("models--Qwen--Qwen2-VL-2B-Instruct/snapshots/0123", None),
    ],
)  # fmt: skip
def test_names_of_folders_and_of_the_hub(tmp_path, name, is_gme):
    assert read_family(written(tmp_path / name, {"config.json": QWEN})).is_gme is is_gme


def test_a_link_says_what_its_folder_says(tmp_path):
    folder = written(tmp_path / "Qwen3-VL-Embedding-2B", {"config.json": QWEN})
    (tmp_path / "latest").symlink_to(folder)
    with pytest.raises(FoundryError, match="the name Qwen3-VL-Embedding-2B"):
        require_gme(tmp_path / "latest", "gme")


def test_a_name_of_the_hub_is_refused_before_it_is_fetched(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it was fetched"))
    for name in ("Qwen/Qwen3-VL-Embedding-2B", "TIGER-Lab/VLM2Vec-Full@main"):
        with pytest.raises(FoundryError, match=f"the name {name.partition('@')[0]}"):
            locate(name)


@pytest.mark.parametrize("content", ["[]", "{", "\udcff", "null"])
def test_a_damaged_file_is_named(tmp_path, content):
    folder = written(tmp_path / "model", {"config.json": QWEN})
    (folder / "config_sentence_transformers.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(FoundryError, match=r"config_sentence_transformers\.json"):
        require_gme(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / "model"
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(folder)
    return folder


@pytest.fixture
def base(saved, tmp_path):
    """The model as Qwen would publish it: nothing says what its inputs are."""
    folder = tmp_path / "base"
    shutil.copytree(saved, folder)
    (folder / "gme.json").unlink()
    return folder


def test_what_was_chosen_is_known_and_saved(saved, base, tmp_path):
    assert Embedder.load(saved).family_evidence == "gme.json"
    with pytest.raises(FoundryError, match="does not say how its inputs are made"):
        Embedder.load(base)
    chosen = Embedder.load(base, inputs="gme")
    assert chosen.settings.inputs == RELEASED
    assert chosen.family_evidence == "as chosen by inputs gme"
    chosen.save(tmp_path / "again")
    assert Embedder.load(tmp_path / "again").family_evidence == "gme.json"
    written(base, {"config_sentence_transformers.json": PROMPTS})
    with pytest.raises(FoundryError, match="Represent the user's input"):
        Embedder.load(base, inputs="gme")


def test_the_processor_of_another_model_is_refused(base):
    with pytest.raises(FoundryError, match="does not say how its inputs are made"):
        GmeProcessor.from_pretrained(base)


def adapters(folder: Path, base: Path | str, files: dict[str, object]) -> Path:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    return written(folder, {"adapter_config.json": config, **files})


def test_adapters_say_it_themselves_or_their_base_does(saved, base, tmp_path):
    assert require_gme(adapters(tmp_path / "a", saved, {})) == "gme.json"
    assert require_gme(adapters(tmp_path / "b", base, {"gme.json": {}})) == "gme.json"
    with pytest.raises(FoundryError, match=f"{base} does not say"):
        require_gme(adapters(tmp_path / "c", base, {}))
    assert require_gme(adapters(tmp_path / "c", base, {}), "gme") == "as chosen by inputs gme"
    with pytest.raises(FoundryError, match=r"/d says of itself .*Represent the user's input"):
        require_gme(adapters(tmp_path / "d", saved, {"config_sentence_transformers.json": PROMPTS}))
    written(base, {"modules.json": POOLED})
    with pytest.raises(FoundryError, match="/base says of itself"):
        require_gme(adapters(tmp_path / "e", base, {"gme.json": {}}), "gme")
    with pytest.raises(FoundryError, match="the name TIGER-Lab/VLM2Vec-LoRA"):
        require_gme(adapters(tmp_path / "f", "TIGER-Lab/VLM2Vec-LoRA", {}))


def doors(model: Path, folder: Path) -> dict[str, list[str]]:
    corpus = folder / "corpus.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["a red flag"]}), corpus)
    return {
        "embed": ["embed", "--input", str(corpus), "--output", str(folder / "out"), "--model", str(model)],
        "export": ["export", "--output", str(folder / "out"), "--model", str(model)],
        "serve": ["serve", "--port", "0", "--model", str(model)],
        "umrb": ["umrb", "run", "--output", str(folder / "out"), "--model", str(model)],
    }


def stop(*_: object) -> None:
    raise FoundryError("the model is there")


@pytest.mark.parametrize("door", ["embed", "export", "serve", "umrb"])
def test_every_verb_that_takes_a_model_asks(base, tmp_path, door, capsys, monkeypatch):
    monkeypatch.setattr("gme_serve.server.run", lambda *_: None)
    command = doors(base, tmp_path)[door]
    assert run(command) == 2
    said = capsys.readouterr().err
    assert "does not say how its inputs are made" in said
    assert "--inputs gme" in said
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("umrb.suite.run_suite", stop)  # else it would go on to tasks
    assert run([*command, "--inputs", "gme"]) == (2 if door == "umrb" else 0)
    said = capsys.readouterr().err
    assert f"{base}: inputs are made as GME's (as chosen by inputs gme)." in said
    assert ("the model is there" in said) == (door == "umrb")
    written(base, {"modules.json": POOLED})
    assert run([*command, "--inputs", "gme"]) == 2
    assert "says of itself that it is not a GME model: modules.json" in capsys.readouterr().err
