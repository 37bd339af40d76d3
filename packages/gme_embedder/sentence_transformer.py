"""The embedder's inputs for sentence-transformers: a processor for folders written by `export`.

    import gme_embedder.sentence_transformer
    model = SentenceTransformer("folder")

sentence-transformers runs such a folder with modules of its own (Transformer, Pooling, Normalize). Importing this
module registers with `transformers.AutoProcessor` the one part that they lack: the processor that turns an item into
tokens and patches. Knows preparation and what transformers calls inputs; imports no sentence-transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedConfig, ProcessorMixin

from gme_data.errors import FoundryError
from gme_embedder.checkpoint import Settings, read_settings, with_inputs
from gme_embedder.config import SPATIAL_MERGE_SIZE, PictureConfig
from gme_embedder.model_files.family import require_gme
from gme_embedder.model_files.file_names import SETTINGS, TOKENIZER
from gme_embedder.model_files.locate import locate
from gme_embedder.model_files.model_folder import ModelFolder
from gme_embedder.processing.batch import TokenisedItem
from gme_embedder.processing.containers import as_list
from gme_embedder.processing.prepare import Preparer
from gme_embedder.processing.prompt import PAD

_FRAMES = 2
"""The towers' patches span two frames, and a still picture fills both."""

_TOKENIZER_OPTIONS = ("cache_dir", "local_files_only", "model_max_length", "token")

Conversation = Sequence[Mapping[str, Any]]
"""Chat messages: one of the role `user`, whose content is a text, a picture or both, and optionally, before it, one of
the role `system` with the instruction. The order of text and picture in the content does not matter."""


class GmeProcessor(ProcessorMixin):
    """Turns conversations into padded inputs of a `Qwen2VLModel`, exactly as `Embedder.encode` prepares them.

    Args:
        tokenizer: Its `model_max_length` cuts prompts, its pad token fills rows.
        settings: Those that the model was trained with.
        backend: A copy of the fast tokenizer, on which no caller sets padding or truncation.
        chat_template: What transformers uses for texts where this class is not imported.
    """

    def __init__(
        self,
        tokenizer: Any = None,  # noqa: ANN401 - a tokenizer of transformers; the name tells it what this is
        settings: Settings | None = None,
        backend: Tokenizer | None = None,
        chat_template: str | None = None,
    ) -> None:
        if tokenizer is None or settings is None or backend is None:
            raise FoundryError("GmeProcessor is made by from_pretrained, from the folder of an exported model.")
        super().__init__(tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call] # transformers is untyped here
        self.image_token = PAD
        self._settings, self._backend = settings, backend
        self._preparers: dict[int, Preparer] = {}

    @classmethod
    def from_pretrained(  # type: ignore[override] # takes less than transformers' own
        cls,
        pretrained_model_name_or_path: str | Path,
        revision: str | None = None,
        **options: Any,  # noqa: ANN401 - as transformers hands over
    ) -> Self:
        """Reads the tokenizer, its template and gme.json of an exported folder, or of one on the hub.

        Raises:
            FoundryError: No such folder, one that is not of a GME model, or damaged settings.
        """
        source = ModelFolder.open(locate(pretrained_model_name_or_path, revision))
        require_gme(source.folder)
        options = {name: value for name, value in options.items() if name in _TOKENIZER_OPTIONS}
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, revision=revision, **options)
        backend = Tokenizer.from_file(str(source.path(TOKENIZER)))
        return cls(tokenizer, read_settings(source), backend, tokenizer.chat_template)

    def __call__(self, images: object = None, text: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as transformers hands over
        """Tokenises prompts as they stand, as processors do; items go through `apply_chat_template` or `inputs`.

        Raises:
            FoundryError: Pictures, for which a bare prompt has no placeholder.
        """
        if images is not None:
            raise FoundryError("Pictures are taken by apply_chat_template(conversations, tokenize=True) or by inputs.")
        return super().__call__(text=text, **options)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> list[str]:  # type: ignore[override] # noqa: ANN401 - as transformers hands over
        """Writes the tokenizer, the name of this class and gme.json; returns the paths of the files."""
        written: list[str] = super().save_pretrained(save_directory, **options)
        path = Path(save_directory) / SETTINGS
        path.write_text(self._settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return [*written, str(path)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of processor_config.json: only the class name, since gme.json has the settings."""
        return {"processor_class": type(self).__name__}

    def apply_chat_template(  # type: ignore[override] # takes less than transformers' own
        self,
        conversation: Conversation | Sequence[Conversation],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,  # noqa: ANN401 - as transformers hands over
    ) -> Any:  # noqa: ANN401 - BatchFeature, or text without `tokenize`
        """Returns inputs of one conversation or several; the template itself is used only without `tokenize`.

        Args:
            conversation: One conversation, or a batch.
            chat_template: Used only without `tokenize`.
            tokenize: Whether to return inputs, see `inputs`. Otherwise the prompts are returned as text, and pictures
                are refused.
            processor_kwargs: Its ``text_kwargs.max_length`` cuts prompts earlier.
            options: Used only without `tokenize`.

        Raises:
            FoundryError: A conversation of another kind than `Conversation`, or a bad item; see `Preparer.prepare`.
        """
        if not tokenize:
            return super().apply_chat_template(conversation, chat_template, tokenize=False, **options)  # type: ignore[arg-type] # typed narrower than it is
        listed = as_list(conversation)
        batch = [listed] if listed and isinstance(listed[0], Mapping) else listed
        text_options = (processor_kwargs or {}).get("text_kwargs") or {}
        pairs = [_item_and_instruction(row, messages) for row, messages in enumerate(batch)]  # type: ignore[arg-type] # narrowed above
        items, instructions = [item for item, _ in pairs], [instruction for _, instruction in pairs]
        return self.inputs(items, instructions, text_options.get("max_length"))

    def inputs(
        self, items: Sequence[Mapping[str, Any]], instructions: Sequence[str | None], max_length: int | None = None
    ) -> BatchFeature:
        """Returns the inputs of a forward call for n items.

        Args:
            items: Dicts with ``text`` and/or ``image``.
            instructions: One for each item; None means the default.
            max_length: Longest prompt in tokens; by default the tokenizer's `model_max_length`.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 [n, longest], right-padded; with pictures also ``pixel_values``
            float32 [patches, 1176], ``image_grid_thw`` int64 [pictures, 3], and ``mm_token_type_ids`` int64
            [n, longest] that make the model count positions as the settings say: all 0 for sequential ones.

        Raises:
            FoundryError: Another number of instructions than of items; a bad item or picture, an instruction without
                room for a text: see `Preparer.prepare`.
        """
        listed = as_list(items)
        if isinstance(instructions, str) or len(instructions) != len(listed):
            raise FoundryError(
                f"Expected a list of {len(listed)} instructions, one for each item; None for the default."
            )
        preparer = self._preparer(max_length or self.tokenizer.model_max_length)
        tokenised: list[TokenisedItem | None] = [None] * len(listed)
        # The preparer takes one instruction for all items of a call.
        for instruction in dict.fromkeys(instructions):
            rows = [row for row, other in enumerate(instructions) if other == instruction]
            for unloaded in preparer.tokenise_prompts([listed[row] for row in rows], instruction, numbers=rows):
                tokenised[unloaded.number] = preparer.load_picture(unloaded)
        return self._padded([item for item in tokenised if item is not None])

    def _padded(self, items: Sequence[TokenisedItem]) -> BatchFeature:
        longest = max((len(item.ids) for item in items), default=0)
        ids = torch.full((len(items), longest), self.tokenizer.pad_token_id)
        mask, token_types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, item in enumerate(items):
            ids[row, : len(item.ids)] = torch.tensor(item.ids)
            mask[row, : len(item.ids)] = 1
            if self._settings.inputs.positions == "mrope":
                token_types[row, item.image_start : item.image_start + math.prod(item.token_grid)] = 1
        data = {"input_ids": ids, "attention_mask": mask}
        with_picture = [item for item in items if item.pixels is not None]
        if with_picture:
            pictures = self._settings.inputs.pictures
            grids = [[1, *(SPATIAL_MERGE_SIZE * side for side in item.token_grid)] for item in with_picture]
            data |= {
                "mm_token_type_ids": token_types,
                "pixel_values": torch.cat([_patches(item, pictures) for item in with_picture]),
                "image_grid_thw": torch.tensor(grids),
            }
        return BatchFeature(data)

    def _preparer(self, max_tokens: int) -> Preparer:
        if max_tokens not in self._preparers:
            settings = with_inputs(self._settings, {"max_tokens": max_tokens}, where="max_length")
            self._preparers[max_tokens] = Preparer(self._backend, settings.inputs)
        return self._preparers[max_tokens]


class _Registered(PreTrainedConfig):  # type: ignore[no-untyped-call] # transformers is untyped here
    """The key that `AutoProcessor.register` takes; no model has it, since processor_config.json names the class."""

    model_type = "gme"


def _item_and_instruction(row: int, conversation: Conversation) -> tuple[dict[str, Any], str | None]:
    """Returns the item and the instruction of a conversation."""
    if isinstance(conversation, str | Mapping) or not all(isinstance(message, Mapping) for message in conversation):
        raise FoundryError(
            f"Item {row}: a conversation is a list of messages, found {type(conversation).__name__}.",
            hint='[{"role": "user", "content": "a text"}]',
        )
    roles = [message.get("role") for message in conversation]
    if roles not in (["user"], ["system", "user"]):
        raise FoundryError(f"Item {row}: a conversation is a user's message, perhaps after a system's; found {roles}.")
    *system, user = [_parts(row, message.get("content")) for message in conversation]
    if any("image" in parts for parts in system):
        raise FoundryError(f"Item {row}: a picture in the instruction.")
    return user, system[0].get("text") if system else None


def _parts(row: int, content: object) -> dict[str, Any]:
    """Returns ``{"text": ..., "image": ...}`` of a message's content."""
    if isinstance(content, str):
        return {"text": content}
    parts: dict[str, Any] = {}
    for part in content if isinstance(content, list | tuple) else []:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind not in ("text", "image") or not isinstance(part, Mapping) or kind not in part:
            raise FoundryError(f"Item {row}: content of the type '{kind}'; an item is made of text and image.")
        if kind in parts:
            raise FoundryError(f"Item {row}: more than one {kind}; an item has one at most.")
        parts[kind] = part[kind]
    return parts


def _patches(item: TokenisedItem, config: PictureConfig) -> Tensor:
    """Returns normalised patches of an item's picture in the order of transformers, float32 [p, 3 * frames * side**2].

    The four patches of one visual token are neighbours; inside a patch the order is channel, frame, row, column.
    """
    colours = (torch.from_numpy(np.array(item.pixels)) / 255 - torch.tensor(config.mean)) / torch.tensor(config.std)
    (rows, columns), merge = item.token_grid, SPATIAL_MERGE_SIZE
    cut = colours.view(rows, merge, config.patch, columns, merge, config.patch, 1, 3)
    # row of tokens, column of tokens, row in token, column in token, channel, frame, row in patch, column in patch
    ordered = cut.permute(0, 3, 1, 4, 7, 6, 2, 5).expand(-1, -1, -1, -1, -1, _FRAMES, -1, -1)
    return ordered.reshape(rows * columns * merge**2, 3 * _FRAMES * config.patch**2)


AutoProcessor.register(_Registered, GmeProcessor)  # type: ignore[no-untyped-call] # transformers is untyped here
