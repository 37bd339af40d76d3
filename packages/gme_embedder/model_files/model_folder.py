"""The files of a model, chosen by name and known by their digests, from the check of the folder to its loader.

Where a manifest speaks, the files are those that it names, and the folder holds nothing else. Elsewhere, as in a
snapshot of the hub, they are the configuration and the weights that the index names. One of both is loaded: an index
beside a `model.safetensors` would leave it to each library which. Reads files; imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.file_digests import file_digest
from gme_data.structured import read_json
from gme_data.verified import VerifiedFolder
from gme_embedder.model_files.adapter_config import base_folder, leaves_folder, read_adapter
from gme_embedder.model_files.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX, READ, WEIGHTS

_AGAIN = "Load the model again when nobody writes into its folder."
_SNAPSHOT = re.compile(r"^models--[^/]+$")


class _Index(BaseModel):
    """Which file each weight lies in."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk. Made by `open`.

    Attributes:
        folder: Where it lies.
        digests: sha256 of each file that is read, by name.
        weights: Those that hold the weights.
        base: The model that adapters belong to; None for a whole model.
    """

    folder: Path
    digests: Mapping[str, str]
    weights: tuple[str, ...]
    base: ModelFolder | None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Choose the files of a model and hash them, each once as long as it does not change.

        Args:
            folder: As `locate` returns it.

        Raises:
            FoundryError: No such folder or not one of a model; a file can't be read, lies elsewhere, or is not named by
                the manifest of the folder; more than one model lies in it; adapters whose base is not there, or
                is built on them.
        """
        return cls._open(folder, ())

    @classmethod
    def _open(cls, folder: Path, above: Sequence[Path]) -> Self:
        verified = VerifiedFolder.containing(folder)
        there = [name for name in (*READ, WEIGHTS, ADAPTER_WEIGHTS) if _is_there(folder, name, verified)]
        if not there:
            raise FoundryError(
                f"No model folder '{folder}': there is no configuration and no weights.",
                hint="Give the folder of a trained or released model.",
            )
        weights = _weights(folder, there, verified)
        names = sorted({*weights, *(name for name in there if name in READ)})
        try:
            digests = {name: verified.digest(name) if verified else _digest(folder, name) for name in names}
        except OSError as error:
            raise FoundryError(f"{error.filename or folder} can't be read: {error.strerror}") from error
        base = None
        if ADAPTER_CONFIG in names:
            adapter = read_adapter(folder)
            if verified and leaves_folder(adapter):
                raise FoundryError(
                    f"{folder / ADAPTER_CONFIG} names the base {adapter.base}, which lies outside of its folder.",
                    hint="Write the base model's whole path or hub name.",
                )
            base = cls._open(base_folder(adapter, above), [*above, folder])
        return cls(folder, digests, weights, base)

    @property
    def digest(self) -> str:
        """One sha256 of all that the vectors depend on: names and bytes of the files, and the base of adapters."""
        own = sha256_json(sorted(map(list, self.digests.items())))
        return sha256_json([own, self.base.digest]) if self.base else own

    def has(self, name: str) -> bool:
        """Whether a file is part of the model."""
        return name in self.digests

    def path(self, name: str) -> Path:
        """Where a file of the model lies.

        Raises:
            FoundryError: It has no such file.
        """
        if name not in self.digests:
            raise FoundryError(
                f"Not a model folder: {self.folder} has no {name}.",
                hint="Give the folder of a trained or released model.",
            )
        return self.folder / name

    def require_unchanged(self) -> None:
        """Make sure that what was read since is what was hashed.

        Raises:
            FoundryError: A file has changed.
        """
        for name, digest in self.digests.items():
            try:
                now = file_digest(self.folder / name, across_runs=True)
            except OSError as error:
                raise FoundryError(f"{self.folder / name} went while it was read.", hint=_AGAIN) from error
            if now != digest:
                raise FoundryError(f"{self.folder / name} was changed while it was read.", hint=_AGAIN)
        if self.base:
            self.base.require_unchanged()


def _is_there(folder: Path, name: str, verified: VerifiedFolder | None) -> bool:
    # An index may name anything; unlike pathlib's, this one says no of what is too long for a name.
    return name in verified if verified else os.path.isfile(folder / name)  # noqa: PTH113


def _weights(folder: Path, there: Sequence[str], verified: VerifiedFolder | None) -> tuple[str, ...]:
    """The files of the weights; () where there are none."""
    whole, is_adapter = [name for name in (INDEX, WEIGHTS) if name in there], ADAPTER_CONFIG in there
    if len(whole) > 1 or (whole and is_adapter):
        raise FoundryError(
            f"{folder} holds more than one model: {' and '.join([*whole, *[ADAPTER_CONFIG] * is_adapter])}.",
            hint="Leave the one that is meant, and move the other elsewhere.",
        )
    if is_adapter:
        return (ADAPTER_WEIGHTS,) if ADAPTER_WEIGHTS in there else ()
    if INDEX in there:
        return _indexed(folder, verified)
    return tuple(whole)


def _indexed(folder: Path, verified: VerifiedFolder | None) -> tuple[str, ...]:
    path = folder / INDEX
    names = sorted(set(read_json(path, _Index).weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or name.startswith(".") or "\\" in name:
            raise FoundryError(
                f"{path} names {name!r}, which is no file of weights in its folder.",
                hint="The weights of a model are safetensors files beside their index.",
            )
        if not _is_there(folder, name, verified):
            raise FoundryError(f"{path} names {name}, which is not there.", hint="Fetch the whole model again.")
    return tuple(names)


def _digest(folder: Path, name: str) -> str:
    """Of a file of a folder in which no manifest speaks; a link may only lead into the cache of the hub.

    A snapshot of the hub is a folder of links to the blobs of its repository, beside it. Any other link would let
    somebody else's file be loaded under the name of this folder.
    """
    path = folder / name
    if path.is_symlink():
        home = folder.resolve()
        if home.parent.name == "snapshots" and _SNAPSHOT.match(home.parents[1].name):
            home = home.parents[1]
        if not path.resolve().is_relative_to(home):
            raise FoundryError(
                f"{path} is a link to {path.resolve()}, outside of its folder.",
                hint="Copy the file into the folder, or give the folder that it lies in.",
            )
    return file_digest(path, across_runs=True)
