"""A language model inside this process, by transformers: plain completion after worked examples, greedy, in batches.

By default SmolLM2-135M-Instruct from its installed package, in float32. So small a model can't be told what to do, but
it goes on with what it is shown; the filters after it are there for exactly that. Knows no journal and no prompt file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gme_data.digests import canonical_json
from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_synthesis.llm.protocol import Answered, Reply, Request

if TYPE_CHECKING:
    import torch

_LAYERS, _VOCABULARY = 30, 49152


class LocalConfig(Frozen):
    """Which model, and how many requests at a time."""

    path: str = ""
    """Folder of a causal language model with safetensors; empty is SmolLM2-135M-Instruct from its package."""
    device: str = "cpu"
    """As torch names it."""
    batch: int = Field(default=8, ge=1)
    """Requests completed together."""


class LocalModel:
    """See `LanguageModel`. The weights are loaded with the first request."""

    def __init__(self, config: LocalConfig) -> None:
        self._config = config

    @property
    def name(self) -> str:
        """Model and sampling settings."""
        return canonical_json([self._config.path or "SmolLM2-135M-Instruct", "greedy completion"])

    @property
    def reads_hints(self) -> bool:
        """See `LanguageModel`."""
        return False

    def complete(self, requests: Iterable[Request], answered: Answered) -> None:
        """See `LanguageModel`."""
        for batch in _batched(enumerate(requests), self._config.batch):
            replies = self._complete([request for _, request in batch])
            for (number, _), reply in zip(batch, replies, strict=True):
                answered(number, reply)

    def _complete(self, requests: list[Request]) -> list[Reply]:
        model, tokenizer = _load(self._config.path, self._config.device)
        texts = [request.prompt.completion(request.given) for request in requests]
        inputs = tokenizer(texts, return_tensors="pt", padding=True).to(self._config.device)
        length = inputs["input_ids"].shape[1]
        made = model.generate(  # which computes without gradients
            **inputs,
            max_new_tokens=max(request.prompt.max_tokens for request in requests),
            do_sample=False,
            stopping_criteria=[partial(_ended, tokenizer, length, requests)],
        )
        read = inputs["attention_mask"].sum(1).tolist()
        written = tokenizer.batch_decode(made[:, length:], skip_special_tokens=True)
        tokens = (made[:, length:] != tokenizer.pad_token_id).sum(1).tolist()
        return [
            Reply(request.prompt.parse_completion(text), seen, new)
            for request, text, seen, new in zip(requests, written, read, tokens, strict=True)
        ]


def _ended(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped here
    start: int,
    requests: list[Request],
    tokens: torch.Tensor,
    _: Any,  # noqa: ANN401 - scores, which it is given as well
) -> torch.Tensor:
    """Which rows have a line for each field, or came to the end of their block, bool [b]; prompts end at `start`."""
    import torch

    texts = tokenizer.batch_decode(tokens[:, start:])
    ended = [
        "\n\n" in text or text.count("\n") >= len(request.prompt.fields)
        for text, request in zip(texts, requests, strict=True)
    ]
    return torch.tensor(ended, device=tokens.device)


def _batched(numbered: Iterable[tuple[int, Request]], size: int) -> Iterator[list[tuple[int, Request]]]:
    batch: list[tuple[int, Request]] = []
    for one in numbered:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@cache
def _load(path: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer, padding on the left."""
    if not path:
        return _smollm(device)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise FoundryError(f"{path}: not a language model that transformers can read: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer


def _smollm(device: str) -> tuple[Any, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from gme_embedder.modeling import smollm

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=smollm.HIDDEN_SIZE,
        intermediate_size=smollm.INTERMEDIATE_SIZE,
        num_hidden_layers=_LAYERS,
        num_attention_heads=smollm.HEADS,
        num_key_value_heads=smollm.KV_HEADS,
        max_position_embeddings=smollm.CONTEXT,
        rms_norm_eps=smollm.NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": smollm.ROPE_THETA},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.load_state_dict(smollm.language_weights(_LAYERS), assign=True)
    model.tie_weights()
    # Buffers are not among the weights; made anew, since those above were never filled.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    special: Any = dict.fromkeys(("pad_token", "eos_token"), "<|im_end|>")
    fast: Any = PreTrainedTokenizerFast
    return model.to(device).eval(), fast(tokenizer_object=smollm.tokenizer(), padding_side="left", **special)
