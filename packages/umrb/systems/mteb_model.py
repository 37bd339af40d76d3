"""An `Embedder` as mteb takes it: ``mteb.evaluate(MtebEmbedder.load(folder, "owner/model"), tasks)``.

Items are texts, pictures or both, in any mixture; only queries get an instruction, as in the authors' own evaluation of
GME. Batches are made by tokens from windows of mteb's data loader, whatever its batch size. Knows no score and no file
of results: those are mteb's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self, TypeAlias, Unpack

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import BatchedInput, EncodeKwargs, PromptType
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from gme_data.cells import CellError, is_missing, text_cell
from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.progress import Progress
from gme_embedder.embedder import Embedder
from umrb.systems.base import BadItemsError
from umrb.systems.mteb_meta import describe

Window: TypeAlias = list[dict[str, Any]]
"""Items as `Embedder.encode` takes them: dicts with ``text`` and ``image``, either of which may be None."""

_WINDOW_ITEMS = 2048
_WINDOW_PIXELS = 64 * 2**20
"""A window holds at most so many pixels, which are 192 MiB of decoded pictures."""
_MIN_PIXELS = 2**18
"""A picture counts as at least so many pixels, since a small one may be enlarged before it is encoded."""


class MtebEmbedder(AbsEncoder):
    """A model that `mteb.evaluate` accepts. Similarity is cosine.

    Args:
        embedder: The model.
        name: ``owner/model``, under which mteb files the results.
        revision: Names weights and settings, see `model_digest`: mteb reuses the scores of an equal revision.
        instructions: mteb task name -> instruction of its queries. A task type or ``query`` is a key too. Other tasks
            use the prompt of their metadata. Parts of an aggregated task are looked up by their own name.
        variant: Settings that change the vectors and are not in `revision`, such as the precision.
        batch_tokens: Tokens computed at once; None takes what is fast on the device.

    Raises:
        FoundryError: mteb can't file results under the name.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        name: str,
        revision: str,
        instructions: Mapping[str, str] | None = None,
        variant: Mapping[str, Any] | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = embedder
        self.prompts_dict = dict(instructions or {})
        # Instructions change the vectors of queries, so results under others must be filed apart.
        digest = {"instructions": sha256_json(self.prompts_dict)[:12]} if self.prompts_dict else {}
        self.mteb_model_meta = describe(embedder, name, revision, {**(variant or {}), **digest})
        self._batch_tokens = batch_tokens

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str,
        *,
        instructions: Mapping[str, str] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_tokens: int | None = None,
        **inputs: Any,  # noqa: ANN401 - checked by the embedder
    ) -> Self:
        """Read a model folder; its digest is the revision.

        Args:
            folder: As for `Embedder.load`, but on this machine.
            name: See the class.
            instructions: See the class.
            device: See `Embedder.load`.
            dtype: See `Embedder.load`.
            batch_tokens: See the class.
            inputs: Input settings that replace the model's own, see `Embedder.load`.

        Raises:
            FoundryError: See `Embedder.load` and the class.
        """
        embedder = Embedder.load(folder.absolute(), device, dtype, **inputs)
        variant = inputs if dtype == "float32" else {"dtype": dtype, **inputs}
        return cls(
            embedder,
            name=name,
            revision=embedder.source.digest,
            instructions=instructions,
            variant=variant,
            batch_tokens=batch_tokens,
        )

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Unpack[EncodeKwargs],
    ) -> NDArray[np.float32]:
        """Embed all items of a data loader.

        Args:
            inputs: Batches with ``text`` (mteb has joined the title into it) and/or ``image``; a picture may be None.
            task_metadata: Metadata of the task, which hold its instruction.
            hf_split: Split that errors name.
            hf_subset: Ignored.
            prompt_type: Documents get no instruction. None, in tasks without queries and documents, counts as a query.
            kwargs: ``show_progress_bar`` and ``precision``; the batch size is ignored.

        Returns:
            L2-normalised vectors, float32 [n, d], in the order of the loader.

        Raises:
            BadItemsError: Items that can't be embedded, by their rows in the loader's data set.
            FoundryError: A batch of another shape; a ``precision`` other than float32; an instruction without room for
                a text.
        """
        del hf_subset
        if kwargs.get("precision", "float32") != "float32":
            raise FoundryError(f"Vectors are float32, not {kwargs['precision']}.", hint="Leave `precision` out.")
        label = f"{task_metadata.name} {prompt_type.value if prompt_type else 'input'}"
        instruction = self.instruction(task_metadata, prompt_type)
        try:
            self.model.preparer.check_instruction(instruction)
        except FoundryError as error:
            # The task is named, since its instruction is at fault and no single item.
            raise FoundryError(f"{task_metadata.name}: {error}", hint=error.hint) from error
        vectors = [np.zeros((0, self.model.dimension), np.float32)]
        total, encoded = len(inputs.dataset), 0  # type: ignore[arg-type] # mteb's data sets have a length
        with Progress(label, total) if kwargs.get("show_progress_bar", True) else nullcontext() as progress:
            try:
                for window in windows(inputs):
                    vectors.append(self._embed(window, instruction, encoded))
                    encoded += len(window)
                    if progress:
                        progress.advance(len(window))
                    # Otherwise its pictures would stay in memory until the next window is full.
                    window.clear()
            except BadItemsError as error:
                raise error.about(f"{label}, split {hf_split}", lambda row: f"row {row}") from error
        return np.concatenate(vectors)

    def instruction(self, task_metadata: TaskMetadata, prompt_type: PromptType | None) -> str | None:
        """Return the instruction of a side of a task, with the full stop that the authors' wrapper appends.

        Returns:
            The instruction; None, which means the model's default, for documents and for tasks without an instruction.
        """
        if prompt_type is PromptType.document:
            return None
        # Without a side mteb returns a prompt that differs by side as a whole dict.
        text = self.get_instruction(task_metadata, PromptType.query)
        if not text:
            return None
        return text if text.endswith(".") else f"{text}."

    def _embed(self, window: Window, instruction: str | None, first: int) -> NDArray[np.float32]:
        bad: dict[int, str] = {}
        vectors: NDArray[np.float32] = self.model.encode(window, instruction, batch_tokens=self._batch_tokens, bad=bad)
        if bad:
            raise BadItemsError(
                {first + number: why.removeprefix(f"Item {number}: ") for number, why in sorted(bad.items())}
            )
        return vectors


def windows(batches: Iterable[BatchedInput]) -> Iterator[Window]:
    """Iterate over the items of all batches, in order, in windows that are bounded by items and by pixels.

    Large windows let items of similar length meet in a batch. One window and one batch are in memory at a time.

    Raises:
        BadItemsError: See `items_of`; items are numbered across all batches.
        FoundryError: See `items_of`.
    """
    window: Window = []
    pixels = total = 0
    for batch in batches:
        try:
            items = items_of(batch)
        except BadItemsError as error:
            raise BadItemsError({total + row: why for row, why in error.reasons.items()}) from error
        total += len(items)
        for item in items:
            window.append(item)
            pixels += _pixels(item["image"])
            if len(window) >= _WINDOW_ITEMS or pixels >= _WINDOW_PIXELS:
                yield window
                window, pixels = [], 0
    if window:
        yield window


def items_of(batch: BatchedInput) -> Window:
    """Return the items of a batch. ``title``, ``body`` and ``query`` are ignored: mteb's ``text`` is made of them.

    Raises:
        BadItemsError: A text is no text, such as a list of messages, or a row has neither text nor picture.
        FoundryError: The batch is no dict of columns, has neither text nor pictures, or columns of different lengths.
    """
    columns: Mapping[str, Any] = batch if isinstance(batch, Mapping) else {}
    if not {"text", "image"} & columns.keys():
        shape = ", ".join(columns) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise FoundryError(
            f"A batch of mteb has neither text nor image, but {shape or 'nothing'}.",
            hint="Choose tasks of text and pictures; batches are dicts of columns, as mteb's data loaders make them.",
        )
    present = {name: columns[name] for name in ("text", "image") if columns.get(name) is not None}
    lengths = {name: len(values) if _is_column(values) else None for name, values in present.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise FoundryError(f"A batch of mteb has columns that are no lists of one length: {lengths}.")
    absent = [None] * (next(iter(lengths.values()), 0) or 0)
    items, bad = [], {}
    pairs = zip(present.get("text", absent), present.get("image", absent), strict=True)
    for row, (text, image) in enumerate(pairs):
        if image is None and is_missing(text):
            bad[row] = "neither text nor picture"
            continue
        try:
            items.append({"text": text_cell(text) or (None if image is not None else ""), "image": image})
        except CellError as error:
            bad[row] = str(error)
    if bad:
        raise BadItemsError(bad)
    return items


def _is_column(values: object) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)


def _pixels(image: object) -> int:
    if image is None:
        return 0
    width, height = getattr(image, "size", (0, 0))
    return max(width * height, _MIN_PIXELS)
