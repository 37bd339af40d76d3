"""The public interface of the model: items in, unit vectors out, whatever their mixture, order and number.

Items are batched by tokens, not by count, and similar lengths together. Knows preparation and model; not data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gme_data.batching import batched
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
from gme_embedder.modeling.model import EmbedderModel, PrefixCaches
from gme_embedder.modeling.tiny import build_tiny
from gme_embedder.processing.ahead import map_ahead
from gme_embedder.processing.batch import PreparedBatch, TokenisedItem, pack, shared_prefix
from gme_embedder.processing.containers import Items, is_single, items_of, length_of
from gme_embedder.processing.inputs import EmbedderInput
from gme_embedder.processing.prepare import OnError, Preparer, UnloadedItem, raise_error
from gme_embedder.starter.weights import apply_starter

BATCH_TOKENS, _BATCH_TOKENS_FP32_CPU, _BATCH_TOKENS_GPU = 4096, 1024, 16384
"""Tokens in a forward pass by default. In float32 on a CPU its activations should fit the processor's caches."""
_WINDOW = 2048
"""Items are tokenised and sorted by length this many at a time; pictures are decoded only a few batches ahead."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Embedder:
    """A universal multimodal embedder, which `load` or `fresh` makes.

    Attributes:
        model: The torch module.
        preparer: Turns items into batches by the model's own settings.
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
        """Reads a model.

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
        """Makes the tiny model before training: SmolLM2's layers and a tower initialised from `seed`, or the starter.

        Raises:
            FoundryError: The package with SmolLM2's weights is not installed, or the starter does not fit the `config`.
        """
        qwen, tokenizer = build_tiny(config, seed)
        if config.starter:
            apply_starter(qwen, config.starter)
        return cls(qwen, tokenizer, Settings(inputs=config.inputs, embedding_dtype=config.embedding_dtype))

    @property
    def source(self) -> ModelFolder:
        """The files that it was loaded from, with their digest, by which records name the model.

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
        """Tokens that `encode` computes in one forward pass by default."""
        weight = self.model.language.embed_tokens.weight
        if weight.device.type != "cpu":
            return _BATCH_TOKENS_GPU
        return _BATCH_TOKENS_FP32_CPU if weight.dtype == torch.float32 else BATCH_TOKENS

    def save(self, folder: Path) -> None:
        """Writes a model folder that `load` reads; see `checkpoint.save_model`."""
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
        """Embeds items.

        Threads decode and resize the pictures of the next batches while the model computes.

        Args:
            items: One item (see `inputs.EmbedderInput`) or a container of them (see `containers.Items`).
            instruction: The task of queries in a sentence; None for candidates.
            images: Where the pictures of `Item`s are looked up.
            batch_tokens: Tokens in one forward pass; more need more memory. None takes what is fast on the device.
            progress: Label of a progress display; None shows none.
            bad: Gets the reason of each bad item by its index, whose vector is zero then; without it they raise.
            on_batch: Called after each batch with its number of items and of tokens.

        Returns:
            L2-normalised float32: [d] for one item, [n, d] for a container, in its order.

        Raises:
            FoundryError: What is neither an item nor a container of them; a bad item or picture, an instruction without
                room for a text: see `Preparer.prepare`.
        """
        single = is_single(items)
        listed: Items = [items] if single else items_of(items)
        self.preparer.check_instruction(instruction)
        # Vectors are allocated window by window, since an iterator of items has no length.
        windows: list[NDArray[np.float32]] = []
        self.model.eval()
        on_error = raise_error if bad is None else lambda number, error: bad.update({number: str(error)})
        # The opening of the prompt is the same in all batches: its keys and values are computed once a call.
        prefixes: PrefixCaches = {}
        batches = self._batches(listed, windows, instruction, images, batch_tokens or self.batch_tokens, on_error)
        with Progress(progress, 1 if single else length_of(items)) if progress else nullcontext() as display:
            for rows, batch in map_ahead(partial(self._prepare, on_error=on_error), batches):
                if rows:  # else all pictures of the batch are bad
                    window = windows[rows[0] // _WINDOW]
                    window[[row % _WINDOW for row in rows]] = self.model.embed(batch, prefixes).cpu().numpy()
                if display:
                    display.advance(len(rows))
                if on_batch:
                    on_batch(len(rows), len(batch.tokens))
        vectors = np.concatenate([np.zeros((0, self.dimension), np.float32), *windows])
        return vectors[0] if single else vectors

    def _batches(
        self,
        items: Iterable[EmbedderInput],
        windows: list[NDArray[np.float32]],
        instruction: str | None,
        images: Images | None,
        batch_tokens: int,
        on_error: OnError,
    ) -> Iterator[list[UnloadedItem]]:
        """Yields batches of similar length from windows of items; appends zeros to `windows` for the vectors of one."""
        for window in batched(items, _WINDOW):
            numbers = range(len(windows) * _WINDOW, len(windows) * _WINDOW + len(window))
            windows.append(np.zeros((len(window), self.dimension), np.float32))
            unloaded = self.preparer.tokenise_prompts(window, instruction, images, numbers=numbers, on_error=on_error)
            for rows in batches_by_tokens([item.item for item in unloaded], batch_tokens):
                yield [unloaded[row] for row in rows]

    def _prepare(self, batch: list[UnloadedItem], *, on_error: OnError) -> tuple[list[int], PreparedBatch]:
        """Returns the numbers of the items whose pictures can be decoded, and the batch of these."""
        loaded = {}
        for item in batch:
            try:
                loaded[item.number] = self.preparer.load_picture(item)
            except FoundryError as error:
                on_error(item.number, error)
        return list(loaded), pack(list(loaded.values()), self.settings.inputs.positions)


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise FoundryError(
            f"Unknown dtype '{name}'.{did_you_mean(name, _DTYPES)}", hint=f"Use one of {', '.join(_DTYPES)}."
        )
    return _DTYPES[name]


def batches_by_tokens(items: Sequence[TokenisedItem], batch_tokens: int) -> Iterator[list[int]]:
    """Yields rows of `items`, longest first, in batches of at most `batch_tokens` tokens, but of one item at least.

    The prefix that all items share counts once a batch, as it is computed once.
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
