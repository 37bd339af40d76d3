"""The embedder for people: items in, unit vectors out, whatever their mixture, order and number.

Batches by tokens, not by count, and similar lengths together. Knows preparation and model; not data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import Images
from gme_data.progress import Progress
from gme_embedder.checkpoint import Settings, load_model, save_model, with_inputs
from gme_embedder.config import ModelConfig
from gme_embedder.model_files.family import Inputs
from gme_embedder.model_files.file_names import SETTINGS
from gme_embedder.model_files.locate import locate
from gme_embedder.model_files.model_folder import ModelFolder
from gme_embedder.modeling.backbone import Backbone, choose_kernel, to_precision
from gme_embedder.modeling.model import EmbedderModel, Prefixes
from gme_embedder.modeling.tiny import build_tiny
from gme_embedder.processing.ahead import ahead
from gme_embedder.processing.batch import PreparedBatch, TokenisedItem, pack, shared_prefix
from gme_embedder.processing.containers import Items, is_single, items_of, length_of
from gme_embedder.processing.prepare import OnError, Planned, Preparer, raise_error
from gme_embedder.processing.sources import EmbedderInput
from gme_embedder.starter.weights import apply_starter

BATCH_TOKENS, _BATCH_TOKENS_FP32_CPU, _BATCH_TOKENS_GPU = 4096, 1024, 16384
"""Tokens computed at once. In float32 on a CPU, what they are multiplied into should stay in its caches."""
_WINDOW = 2048
"""Items tokenised at a time. Pictures are decoded later, a few batches ahead of the model."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Embedder:
    """A universal multimodal embedder. Made by `load` or `fresh`.

    Attributes:
        model: The torch module.
        preparer: Items to batches, by the model's own settings.
        family_evidence: What says that its inputs are made as GME's, for records; see `family.require_gme`.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: Tokenizer,
        settings: Settings,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        attention: str | None = None,
        family_evidence: str = SETTINGS,
        source: ModelFolder | None = None,
    ) -> None:
        self.settings, self.family_evidence, self._source = settings, family_evidence, source
        to_precision(backbone, _dtype(dtype))
        kernel = choose_kernel(backbone, device, attention)
        self.model = EmbedderModel(backbone, settings.inputs.pictures, kernel).to(device).eval()
        self.preparer = Preparer(tokenizer, settings.inputs)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        attention: str | None = None,
        inputs: Inputs | None = None,
        **changes: Any,  # noqa: ANN401 - checked by the settings
    ) -> Self:
        """Read a model.

        Args:
            path: A folder written by `save`, that of a released GME model, a folder of LoRA adapters, or a name on the
                Hugging Face hub such as ``Alibaba-NLP/gme-Qwen2-VL-2B-Instruct``.
            device: As torch names it.
            dtype: `float32`, `bfloat16` or `float16`, of weights and computation; norms and positions stay in float32.
            revision: Branch, tag or commit on the hub.
            attention: A variable-length kernel by its name in transformers, such as `flash_attention_2`; by default
                that one on a GPU where the package flash-attn is installed, in half precision.
            inputs: ``gme`` takes a folder that does not say what its inputs are, such as Qwen2-VL itself, for a GME
                model: a base to train from. One that says that it is of another family is refused.
            changes: Fields of `InputConfig` or `PictureConfig` to use instead of the model's own, for example
                ``min_image_tokens=4`` (the authors' benchmark runs) or ``positions="mrope"``.

        Raises:
            FoundryError: Not a model folder, of another family, damaged, or weights that do not fit; an unknown dtype
                or setting, an attention kernel that is not installed.
        """
        source = ModelFolder.open(locate(path, revision))
        backbone, tokenizer, settings, evidence = load_model(source, _dtype(dtype), inputs)
        return cls(
            backbone,
            tokenizer,
            with_inputs(settings, changes),
            device=device,
            dtype=dtype,
            attention=attention,
            family_evidence=evidence,
            source=source,
        )

    @classmethod
    def fresh(cls, config: ModelConfig, seed: int) -> Self:
        """The tiny model as training finds it: SmolLM2's layers and a vision tower drawn from `seed`, or the starter.

        Raises:
            FoundryError: The package with SmolLM2's weights is not installed, or the starter does not fit the `config`.
        """
        qwen, tokenizer = build_tiny(config, seed)
        if config.starter:
            apply_starter(qwen, config.starter)
        return cls(qwen, tokenizer, Settings(inputs=config.inputs, embedding_dtype=config.embedding_dtype))

    @property
    def source(self) -> ModelFolder:
        """What it was loaded from: the files that were read, and their digest, which records name the model by.

        Raises:
            FoundryError: It was not loaded, but made.
        """
        if self._source is None:
            raise FoundryError("A model that was not loaded from a folder has no digest.", hint="Save and load it.")
        return self._source

    @property
    def dimension(self) -> int:
        """Size of an embedding, d."""
        return self.model.dimension

    @property
    def batch_tokens(self) -> int:
        """How many tokens `encode` computes at once if nobody says."""
        weight = self.model.language.embed_tokens.weight
        if weight.device.type != "cpu":
            return _BATCH_TOKENS_GPU
        return _BATCH_TOKENS_FP32_CPU if weight.dtype == torch.float32 else BATCH_TOKENS

    def save(self, folder: Path) -> None:
        """Write a model folder that `load` reads. See `checkpoint.save_model`."""
        save_model(folder, self.model.qwen, self.preparer.tokenizer, self.settings)

    @torch.inference_mode()
    def encode(
        self,
        items: EmbedderInput | Items,
        instruction: str | None = None,
        images: Images | None = None,
        *,
        batch_tokens: int | None = None,
        progress: str | None = None,
        bad: dict[int, str] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Embed items.

        Threads decode and resize the pictures of the next batches while the model computes.

        Args:
            items: One item (see `sources.EmbedderInput`) or a container of them (see `containers.Items`).
            instruction: For queries: the task in a sentence. None for candidates.
            images: Where the pictures of `Item`s are looked up.
            batch_tokens: Tokens computed at once; more need more memory. None takes what is fast on the device.
            progress: Label of a progress display; None shows none.
            bad: If given, bad items are noted here, place and reason, and their vectors are zero; else they raise.
            on_batch: Told the items and tokens of each batch that is done.

        Returns:
            L2-normalised float32: [d] for one item, [n, d] for a container, in its order.

        Raises:
            FoundryError: What is neither an item nor a container of them; a bad item or picture, an instruction without
                room for a text: see `Preparer.prepare`.
        """
        single = is_single(items)
        listed: Items = [items] if single else items_of(items)
        self.preparer.check_instruction(instruction)
        windows: list[NDArray[np.float32]] = []
        self.model.eval()
        on_error = raise_error if bad is None else lambda number, error: bad.update({number: str(error)})
        prefixes: Prefixes = {}
        plans = self._plans(listed, windows, instruction, images, batch_tokens or self.batch_tokens, on_error)
        with Progress(progress, 1 if single else length_of(items)) if progress else nullcontext() as shown:
            for rows, batch in ahead(partial(self._prepare, on_error=on_error), plans):
                if rows:  # else all pictures of the batch are bad
                    window = windows[rows[0] // _WINDOW]
                    window[[row % _WINDOW for row in rows]] = self.model.embed(batch, prefixes).cpu().numpy()
                if shown:
                    shown.advance(len(rows))
                if on_batch:
                    on_batch(len(rows), len(batch.tokens))
        vectors = np.concatenate([np.zeros((0, self.dimension), np.float32), *windows])
        return vectors[0] if single else vectors

    def _plans(
        self,
        items: Iterable[EmbedderInput],
        windows: list[NDArray[np.float32]],
        instruction: str | None,
        images: Images | None,
        batch_tokens: int,
        on_error: OnError,
    ) -> Iterator[list[Planned]]:
        """Batches of similar length from windows of items; the vectors of each window get their place, all 0."""
        remaining = iter(items)
        while window := list(islice(remaining, _WINDOW)):
            numbers = range(len(windows) * _WINDOW, len(windows) * _WINDOW + len(window))
            windows.append(np.zeros((len(window), self.dimension), np.float32))
            planned = self.preparer.plan(window, instruction, images, numbers=numbers, on_error=on_error)
            for rows in batches_by_tokens([one.item for one in planned], batch_tokens):
                yield [planned[row] for row in rows]

    def _prepare(self, plan: list[Planned], *, on_error: OnError) -> tuple[list[int], PreparedBatch]:
        filled = {}
        for one in plan:
            try:
                filled[one.number] = self.preparer.fill(one)
            except FoundryError as error:
                on_error(one.number, error)
        return list(filled), pack(list(filled.values()), self.settings.inputs.positions)


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise FoundryError(
            f"Unknown dtype '{name}'.{did_you_mean(name, _DTYPES)}", hint=f"Use one of {', '.join(_DTYPES)}."
        )
    return _DTYPES[name]


def batches_by_tokens(items: Sequence[TokenisedItem], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of `items` by falling length in batches of at least one item, as many as make `batch_tokens` tokens.

    The prefix that all items share counts once a batch, as it is computed.
    """
    prefix = shared_prefix(items)
    rows: list[int] = []
    tokens = prefix
    for row in sorted(range(len(items)), key=lambda row: -len(items[row].ids)):
        length = len(items[row].ids) - prefix
        if rows and tokens + length > batch_tokens:
            yield rows
            rows, tokens = [], prefix
        rows.append(row)
        tokens += length
    if rows:
        yield rows
