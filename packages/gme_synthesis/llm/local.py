"""A language model in this process, by transformers: few-shot completion, greedy decoding, in batches.

The default is SmolLM2-135M-Instruct from its installed package, in float32. So small a model does not follow
instructions, but it continues the pattern of worked examples; the filters after it refuse what is useless. Knows no
journal and no prompt file.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gme_data.batching import batched
from gme_data.digests import canonical_json
from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion

if TYPE_CHECKING:
    import torch

_LAYERS, _VOCABULARY = 30, 49152


class LocalConfig(Frozen):
    """The model, and how many requests are completed at a time."""

    path: str = ""
    """Folder of a causal language model with safetensors; empty is SmolLM2-135M-Instruct from its package."""
    device: str = "cpu"
    """Device as torch names it."""
    batch: int = Field(default=8, ge=1)
    """Requests completed together."""


class LocalModel:
    """A `LanguageModel` by transformers; the weights are loaded with the first request."""

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

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        """See `LanguageModel`."""
        for batch in batched(enumerate(requests), self._config.batch):
            completions = self._complete([request for _, request in batch])
            for (index, _), completion in zip(batch, completions, strict=True):
                on_completion(index, completion)

    def _complete(self, requests: list[CompletionRequest]) -> list[Completion]:
        model, tokenizer = _load(self._config.path, self._config.device)
        texts = [request.prompt.completion(request.inputs) for request in requests]
        inputs = tokenizer(texts, return_tensors="pt", padding=True).to(self._config.device)
        prompt_length = inputs["input_ids"].shape[1]
        output = model.generate(  # int64 [batch, prompt_length + new tokens]; `generate` computes without gradients
            **inputs,
            max_new_tokens=max(request.prompt.max_tokens for request in requests),
            do_sample=False,
            stopping_criteria=[partial(_has_ended, tokenizer, prompt_length, requests)],
        )
        new_tokens = output[:, prompt_length:]
        generated = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        tokens_in = inputs["attention_mask"].sum(1).tolist()
        tokens_out = (new_tokens != tokenizer.pad_token_id).sum(1).tolist()
        return [
            Completion(request.prompt.parse_completion(text), count_in, count_out)
            for request, text, count_in, count_out in zip(requests, generated, tokens_in, tokens_out, strict=True)
        ]


def _has_ended(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped here
    prompt_length: int,
    requests: list[CompletionRequest],
    tokens: torch.Tensor,
    _: Any,  # noqa: ANN401 - the scores, which transformers passes as well
) -> torch.Tensor:
    """Says which rows of `tokens` [batch, length] have a line for each field or an empty line, bool [batch].

    The model would otherwise go on with further worked examples of its own invention up to `max_new_tokens`.
    """
    import torch

    texts = tokenizer.batch_decode(tokens[:, prompt_length:])
    ended = [
        "\n\n" in text or text.count("\n") >= len(request.prompt.fields)
        for text, request in zip(texts, requests, strict=True)
    ]
    return torch.tensor(ended, device=tokens.device)


@cache
def _load(path: str, device: str) -> tuple[Any, Any]:
    """Returns model and tokenizer. Padding is on the left, since new tokens follow the last one of every row."""
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
    # On the meta device no weights are initialised that the loaded ones would replace.
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.load_state_dict(smollm.language_weights(_LAYERS), assign=True)
    model.tie_weights()
    # Buffers are not among the weights, and those of the meta device were never computed, so the module is built anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    special: Any = dict.fromkeys(("pad_token", "eos_token"), "<|im_end|>")
    fast: Any = PreTrainedTokenizerFast
    return model.to(device).eval(), fast(tokenizer_object=smollm.tokenizer(), padding_side="left", **special)
