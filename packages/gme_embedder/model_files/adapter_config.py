"""The description of low-rank adapters that peft writes: the scale of the update, and the model that it belongs to.

Imports no torch, as a folder is checked before the slow imports. `gme_embedder.modeling.adapter` folds the weights in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from gme_data.errors import FoundryError
from gme_data.structured import StructureError, read_json
from gme_embedder.model_files.file_names import ADAPTER_CONFIG
from gme_embedder.model_files.locate import locate

MAX_BASES: Final = 4
"""The longest chain of adapters upon adapters; a longer one is taken for a mistake."""
_UNSUPPORTED = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
)


class _LoraConfig(BaseModel):
    """The fields that decide the update; peft writes many others."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    r: Annotated[int, Field(ge=1)]
    lora_alpha: float
    use_rslora: bool | None = None
    base_model_name_or_path: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adapters on disk: their folder, the base that they belong to as written there, and the scale of the update."""

    folder: Path
    base: str
    scale: float


def read_adapter(folder: Path) -> Adapter:
    """Reads the description of adapters.

    Raises:
        FoundryError: No JSON, not LoRA, no base named, or a variant whose update is another formula.
    """
    path = folder / ADAPTER_CONFIG
    try:
        raw = read_json(path, dict[str, Any])
        update = read_json(path, _LoraConfig)
    except (StructureError, FileNotFoundError) as error:
        reason = error.reason if isinstance(error, StructureError) else "it is not there"
        raise FoundryError(f"{path} is no description of LoRA adapters: {reason}") from error
    unsupported = [name for name in _UNSUPPORTED if raw.get(name)]
    if raw.get("peft_type") != "LORA" or raw.get("bias", "none") != "none" or unsupported:
        what = ", ".join(unsupported) or f"peft_type {raw.get('peft_type')}, bias {raw.get('bias')}"
        raise FoundryError(
            f"{path}: adapters of this kind can't be read ({what}).",
            hint="Merge them with peft (merge_and_unload), save the whole model and load that.",
        )
    if not update.base_model_name_or_path:
        raise FoundryError(
            f"{path} names no base_model_name_or_path.", hint="Write the base model's folder or hub name."
        )
    scale = update.lora_alpha / (math.sqrt(update.r) if update.use_rslora else update.r)
    return Adapter(folder, update.base_model_name_or_path, scale)


def base_folder(adapter: Adapter, above: Sequence[Path] = ()) -> Path:
    """Returns the folder of the model that adapters belong to: a path, relative to their folder first, or a hub name.

    Args:
        adapter: The adapters.
        above: Folders of the adapters that have these as their base, outermost first.

    Raises:
        FoundryError: No such folder or model; the adapters name themselves or one of `above`; too many of them.
    """
    inside = adapter.folder / adapter.base
    # Unlike pathlib's, this function returns False for a name that is too long.
    folder = locate(inside if os.path.isdir(inside) else adapter.base)  # noqa: PTH112
    chain = [*above, adapter.folder]
    if folder.resolve() in [adapters.resolve() for adapters in chain]:
        is_itself = folder.resolve() == adapter.folder.resolve()
        what = "its own folder" if is_itself else f"{folder}, which is built on it,"
        raise FoundryError(
            f"{adapter.folder / ADAPTER_CONFIG} names {what} as base_model_name_or_path.",
            hint="Write the base model's folder or hub name.",
        )
    if len(chain) > MAX_BASES:
        raise FoundryError(
            f"{chain[0]}: adapters upon adapters, more than {MAX_BASES}: {' on '.join(map(str, chain))}.",
            hint="Merge them with peft (merge_and_unload), save the whole model and load that.",
        )
    return folder


def leaves_folder(adapter: Adapter) -> bool:
    """Tells whether the path of the base leaves the folder of the adapters."""
    return ".." in PurePath(adapter.base).parts
