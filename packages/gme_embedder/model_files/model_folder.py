"""The files of a model, selected by name and identified by their digests, from the check of the folder to the loader.

In a folder with a manifest, they are the files that it names, and the folder holds no others. Elsewhere, as in a
snapshot of the hub, they are the configuration and the weights that the index names. An index beside a
`model.safetensors` is refused, since each library would choose for itself which to load. Imports no torch.
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

_RETRY = "Load the model again when nobody writes into its folder."
_SNAPSHOT = re.compile(r"^models--[^/]+$")


class _WeightIndex(BaseModel):
    """The index of sharded weights: the file of each weight, by its name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk, which `open` reads.

    Attributes:
        folder: Its path.
        digests: sha256 of each file that is read, by name.
        weights: Names of the files that hold the weights.
        base: The model that adapters belong to; None for a complete model.
    """

    folder: Path
    digests: Mapping[str, str]
    weights: tuple[str, ...]
    base: ModelFolder | None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Selects the files of a model and hashes them, each once as long as it does not change.

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
        present = [name for name in (*READ, WEIGHTS, ADAPTER_WEIGHTS) if _exists(folder, name, verified)]
        if not present:
            raise FoundryError(
                f"No model folder '{folder}': there is no configuration and no weights.",
                hint="Give the folder of a trained or released model.",
            )
        weights = _weight_files(folder, present, verified)
        names = sorted({*weights, *(name for name in present if name in READ)})
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
        """The sha256 of all that the vectors depend on: names and bytes of the files, and the base of adapters."""
        digest = sha256_json(sorted(map(list, self.digests.items())))
        return sha256_json([digest, self.base.digest]) if self.base else digest

    def has(self, name: str) -> bool:
        """Tells whether a file is part of the model."""
        return name in self.digests

    def path(self, name: str) -> Path:
        """Returns the path of a file of the model.

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
        """Checks, after the files were read, that they are still those that were hashed.

        Raises:
            FoundryError: A file has changed.
        """
        for name, digest in self.digests.items():
            try:
                now = file_digest(self.folder / name, across_runs=True)
            except OSError as error:
                raise FoundryError(f"{self.folder / name} went while it was read.", hint=_RETRY) from error
            if now != digest:
                raise FoundryError(f"{self.folder / name} was changed while it was read.", hint=_RETRY)
        if self.base:
            self.base.require_unchanged()


def _exists(folder: Path, name: str, verified: VerifiedFolder | None) -> bool:
    # An index may name anything; unlike pathlib's, this function returns False for a name that is too long.
    return name in verified if verified else os.path.isfile(folder / name)  # noqa: PTH113


def _weight_files(folder: Path, present: Sequence[str], verified: VerifiedFolder | None) -> tuple[str, ...]:
    """Returns the names of the files of the weights; () if there are none."""
    models, is_adapter = [name for name in (INDEX, WEIGHTS) if name in present], ADAPTER_CONFIG in present
    if len(models) > 1 or (models and is_adapter):
        raise FoundryError(
            f"{folder} holds more than one model: {' and '.join([*models, *[ADAPTER_CONFIG] * is_adapter])}.",
            hint="Leave the one that is meant, and move the other elsewhere.",
        )
    if is_adapter:
        return (ADAPTER_WEIGHTS,) if ADAPTER_WEIGHTS in present else ()
    if INDEX in present:
        return _indexed_files(folder, verified)
    return tuple(models)


def _indexed_files(folder: Path, verified: VerifiedFolder | None) -> tuple[str, ...]:
    """Returns the names of the files that the index of the weights names."""
    path = folder / INDEX
    names = sorted(set(read_json(path, _WeightIndex).weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or name.startswith(".") or "\\" in name:
            raise FoundryError(
                f"{path} names {name!r}, which is no file of weights in its folder.",
                hint="The weights of a model are safetensors files beside their index.",
            )
        if not _exists(folder, name, verified):
            raise FoundryError(f"{path} names {name}, which is not there.", hint="Fetch the whole model again.")
    return tuple(names)


def _digest(folder: Path, name: str) -> str:
    """Hashes a file of a folder without a manifest; a link may only lead into the cache of the hub.

    A snapshot of the hub is a folder of links to the blobs of its repository, beside it. Any other link would let
    a file of another folder be loaded under the name of this one.
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
