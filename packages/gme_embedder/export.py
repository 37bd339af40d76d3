"""Export to a folder that `SentenceTransformer` and transformers' `AutoModel` load as well as `Embedder`.

Knows the files of those libraries; not how vectors are computed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gme_embedder.config import InputConfig
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.file_names import CONFIG
from gme_embedder.processing.prompt import SUFFIX, prompt_opening
from gme_embedder.staging import check_precision, compare, probes, staged, update_json, write_json

_TOKENIZER_CONFIG = "tokenizer_config.json"
_MIN_VERSION = "6.0.0"
_MODULES = (
    # Class names that sentence-transformers before 6 lacks: it would drop the prompt, or the end of a long one.
    ("", "sentence_transformers.base.modules.transformer.Transformer"),
    ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
    ("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
)
_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_NO_PICTURES = "For pictures, import gme_embedder.sentence_transformer before the model is loaded."
_PLACEHOLDER = "\0"
_TEMPLATE = (
    "{{%- set ns = namespace(system={default}, text='') -%}}"
    "{{%- for message in messages -%}}{{%- for part in message.content -%}}"
    "{{%- if part.type != 'text' -%}}{{{{ raise_exception({refusal}) }}}}{{%- endif -%}}"
    "{{%- if message.role == 'system' -%}}{{%- set ns.system = part.text -%}}"
    "{{%- else -%}}{{%- set ns.text = ns.text + part.text -%}}{{%- endif -%}}"
    "{{%- endfor -%}}{{%- endfor -%}}"
    "{{%- set system = ns.system{escape} -%}}{{%- set text = ns.text{escape} -%}}"
    "{{{{ {before} + system + {after} + ({space} if text else '') + text + {closing} }}}}"
)


def export_sentence_transformer(embedder: Embedder, folder: Path, *, query_instruction: str = "") -> None:
    """Writes a folder for `SentenceTransformer(folder)`, `AutoModel.from_pretrained(folder)` and `Embedder.load`.

    Texts need no code of this package where it is loaded. Pictures are prepared by
    `gme_embedder.sentence_transformer`, which must be imported before; without it they are refused.

    Args:
        embedder: The model, with weights in float32.
        folder: A new or empty folder.
        query_instruction: The instruction of `encode_query`; empty means the default system text.

    Raises:
        FoundryError: The folder is not empty, the weights are not in float32, the instruction leaves no room for a
            text, or what was written gives other vectors; nothing is left behind then.
    """
    check_precision(embedder)
    embedder.preparer.check_instruction(query_instruction)
    with staged(folder) as staging:
        embedder.save(staging)
        _write_for_transformers(staging, embedder)
        _write_for_sentence_transformers(staging, embedder, query_instruction)
        check_export(embedder, staging)


def check_export(embedder: Embedder, folder: Path) -> None:
    """Compares the vectors of a text, a picture and both with those of the folder, by each library that is installed.

    Raises:
        FoundryError: One differs.
    """
    items = probes()
    instruction = "Find a picture of it."
    expected = [embedder.encode(items), embedder.encode(items, instruction)]
    loaded = Embedder.load(folder)
    compare("Embedder", folder, expected, [loaded.encode(items), loaded.encode(items, instruction)])
    if importlib.util.find_spec("sentence_transformers"):
        compare("SentenceTransformer", folder, expected, _encode_by_sentence_transformers(folder, items, instruction))


def _write_for_transformers(folder: Path, embedder: Embedder) -> None:
    """Writes processor and template, and the fields that transformers would guess otherwise."""
    update_json(folder / CONFIG, architectures=[type(embedder.model.qwen).__name__])
    longest = embedder.settings.inputs.max_tokens
    update_json(folder / _TOKENIZER_CONFIG, model_max_length=longest, padding_side="right")
    # Where the class is not imported, transformers falls back to the tokenizer and its template.
    write_json(folder / "processor_config.json", {"processor_class": "GmeProcessor"})
    template = chat_template(embedder.settings.inputs, embedder.preparer.escapes)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def chat_template(inputs: InputConfig, escapes: Sequence[tuple[str, str]]) -> str:
    """Returns the prompt of a text as a Jinja template over structured messages; a picture raises a helpful error.

    Args:
        inputs: The settings of the model's inputs.
        escapes: See `prompt.escapes`.
    """
    before, _, after = prompt_opening(_PLACEHOLDER).partition(_PLACEHOLDER)
    quoted = {
        name: json.dumps(text, ensure_ascii=False)
        for name, text in (
            ("default", inputs.default_instruction),
            ("space", " " * inputs.leading_space),
            ("before", before),
            ("after", after),
            ("closing", SUFFIX),
            ("refusal", _NO_PICTURES),
        )
    }
    filters = "".join(f"|replace({json.dumps(token)}, {json.dumps(escaped)})" for token, escaped in escapes)
    return _TEMPLATE.format(escape=filters, **quoted)


def _write_for_sentence_transformers(folder: Path, embedder: Embedder, query_instruction: str) -> None:
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind} for number, (path, kind) in enumerate(_MODULES)
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": _MIN_VERSION},
            "requirements": {"sentence-transformers": f">={_MIN_VERSION}"},
            "prompts": {"query": query_instruction, "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    call = {"method": "forward", "method_output_name": "last_hidden_state"}
    keep_closing = embedder.settings.inputs.truncate == "text"
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": call, "image": call, "message": {**call, "format": "structured"}},
            "module_output_name": "token_embeddings",
            "processing_kwargs": {"chat_template": {"restore_suffix": keep_closing}},
            "unpad_inputs": False,
        },
    )
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{kind}": kind == "lasttoken" for kind in _POOLINGS}
    dimension = {"word_embedding_dimension": embedder.dimension}
    write_json(folder / "1_Pooling" / CONFIG, dimension | flags | {"pooling_mode": "lasttoken", "include_prompt": True})
    (folder / "2_Normalize").mkdir()
    write_json(folder / "2_Normalize" / CONFIG, {})


def _encode_by_sentence_transformers(
    folder: Path, items: Sequence[dict[str, Any]], instruction: str
) -> list[NDArray[np.float32]]:
    from sentence_transformers import SentenceTransformer

    import gme_embedder.sentence_transformer  # noqa: F401 - registers the processor

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encode: Callable[..., NDArray[np.float32]] = model.encode
    return [encode(items, show_progress_bar=False), encode(items, prompt=instruction, show_progress_bar=False)]
