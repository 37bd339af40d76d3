"""An `Embedder` as mteb takes it: ``mteb.evaluate(MtebEmbedder.load(folder, "owner/model"), tasks)``.

Texts, pictures and both in any mixture; instructions for queries alone, as the authors of GME did. Batches are made by
tokens from windows of mteb's data loader, whatever its batch size. Knows no score and no file of results: those are
mteb's.
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
"""192 MB of decoded pictures."""
_LEAST_PIXELS = 2**18
"""A picture counts at least this much: a small one may be enlarged before it is computed."""


class MtebEmbedder(AbsEncoder):
    """A model that `mteb.evaluate` accepts. Similarity is cosine.

    Args:
        embedder: The model.
        name: ``owner/model``, under which mteb files the results.
        revision: Names weights and settings, see `model_digest`: for equal ones mteb takes the scores that it has.
        instructions: mteb task name -> instruction of its queries. A task type or ``query`` is a key too. Tasks that
            are not there use the prompt of their metadata. Parts of an aggregated task are looked up by their own name.
        variant: What else changes the vectors and is not in `revision`, such as the precision.
        batch_tokens: Tokens computed at once; None takes what is fast on the device.

    Raises:
        FoundryError: A name that mteb can't file.
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
        told = {"instructions": sha256_json(self.prompts_dict)[:12]} if self.prompts_dict else {}
        self.mteb_model_meta = describe(embedder, name, revision, {**(variant or {}), **told})
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
            inputs: Input settings to use instead of the model's own, see `Embedder.load`.

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
            task_metadata: Task to take the instruction from.
            hf_split: For errors.
            hf_subset: Not used.
            prompt_type: Documents get no instruction. None, in tasks without queries and documents, is as a query.
            kwargs: ``show_progress_bar``; the batch size is not used.

        Returns:
            L2-normalised float32 [n, d] in the order of the loader.

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
            raise FoundryError(f"{task_metadata.name}: {error}", hint=error.hint) from error
        parts = [np.zeros((0, self.model.dimension), np.float32)]
        total, done = len(inputs.dataset), 0  # type: ignore[arg-type] # mteb's data sets have a length
        with Progress(label, total) if kwargs.get("show_progress_bar", True) else nullcontext() as shown:
            try:
                for window in windows(inputs):
                    parts.append(self._embed(window, instruction, done))
                    done += len(window)
                    if shown:
                        shown.advance(len(window))
                    # Else its pictures would stay until the next window is full.
                    window.clear()
            except BadItemsError as error:
                raise error.about(f"{label}, split {hf_split}", lambda row: f"row {row}") from error
        return np.concatenate(parts)

    def instruction(self, task_metadata: TaskMetadata, prompt_type: PromptType | None) -> str | None:
        """The system text of a side of a task, with the full stop that the authors' wrapper gave it.

        Returns:
            None for documents, and for a task that has none anywhere: the model's default.
        """
        if prompt_type is PromptType.document:
            return None
        # A prompt by sides would come back as it is if no side were named.
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
    """The items of all batches, in order, in windows as large as memory allows.

    Large, so that items of similar length meet; bounded by items and by pixels. Holds one window and one batch.

    Raises:
        BadItemsError: See `items_of`; by the number of the item among all.
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
    """The items of a batch. ``title``, ``body`` and ``query`` are passed over: mteb's ``text`` is made of them.

    Raises:
        BadItemsError: Texts that are none, such as lists of messages; rows with neither text nor picture.
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
    nothing = [None] * (next(iter(lengths.values()), 0) or 0)
    items, bad = [], {}
    pairs = zip(present.get("text", nothing), present.get("image", nothing), strict=True)
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
    return max(width * height, _LEAST_PIXELS)
