"""The identity of a folder of vectors, ``job.json``: its corpus, its model and the settings that decide its vectors.

Tables and models are identified by the digests of their content, wherever they lie and however they are called. What
decides no vector is no part of it, such as the device, the treatment of bad rows, or the name of a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json
from gme_embedder.config import InputConfig
from gme_embedder.model_files.locate import hub_commit

if TYPE_CHECKING:
    from gme_embedder.embedder import Embedder

JOB_FILE = "job.json"
Precision = Literal["float32", "bfloat16", "float16"]
StoredDtype = Literal["float32", "float16"]
_REEMBED = "Embed the corpus again into another folder: `gme embed --input TABLES --output ANOTHER`."
_DIGEST_SHOWN = 12


class ModelIdentity(Frozen):
    """The model that made vectors."""

    name: str
    """What the user called it: a folder, a hub name, or the digest of a registered model. Never compared."""
    revision: str | None = None
    """The commit on the hub that the name stood for. Never compared: the digest covers it."""
    digest: str
    """Digest of the files that were loaded; see `gme_embedder.model_files.identity.model_digest`."""
    inputs: InputConfig
    """Input settings that were used, whether they came from the folder or from the call."""
    dimension: int = Field(ge=1)
    """Size of a vector, d."""
    family: str = ""
    """What says that its inputs are made as GME's, such as ``gme.json`` or ``--inputs gme``. Never compared."""


class CorpusIdentity(Frozen):
    """The tables that vectors were made of, pictures inside them included; pictures beside them are known by shard."""

    files: dict[str, str]
    """sha256 by path below the folder, which orders the rows; a single file is ``.``, however it is called."""
    rows: int = Field(ge=0)
    """Number of rows of all files."""


class EmbedJob(Frozen):
    """What decides the vectors of a folder; ``job.json``."""

    format: Literal[2] = 2
    """Version of this file and of those beside it."""
    corpus: CorpusIdentity
    """The corpus that was embedded."""
    model: ModelIdentity
    """The model that embedded it."""
    precision: Precision = "float32"
    """Precision of the computation."""
    instruction: str | None = None
    """Instruction of queries; None for documents."""
    shard_rows: int = Field(default=8192, ge=1)
    """Rows of a shard."""
    dtype: StoredDtype = "float32"
    """Type of the vectors on disk."""
    shards_in: str = Field(default=".", pattern=r"^(\.|shards-[0-9a-f]{16})$")
    """Folder of the shards, relative to this file: ``.``, or the one that the last update made. Never compared."""

    def digest(self) -> str:
        """Returns the sha256 of what decides a vector; every shard records it, so shards of two jobs never mix."""
        ignored: dict[str, Any] = {"model": {"name", "revision", "family"}, "shards_in": True}
        return sha256_json(self.model_dump(mode="json", exclude=ignored))

    def has_retrained_model(self, recorded: EmbedJob) -> bool:
        """Tells whether this is the job `recorded` with another model of the same name, and differs in nothing else."""
        identity = {name: getattr(recorded.model, name) for name in ("digest", "revision", "family")}
        model = self.model.model_copy(update=identity)
        same = self.model_copy(update={"model": model, "shards_in": recorded.shards_in}) == recorded
        return same and self.model.digest != recorded.model.digest


def identify_model(embedder: Embedder, name: str) -> ModelIdentity:
    """Returns what a folder of vectors records of its model.

    Args:
        embedder: The model, loaded.
        name: What the user called it.

    Raises:
        FoundryError: It was not loaded from a folder.
    """
    return ModelIdentity(
        name=name,
        revision=hub_commit(embedder.source.folder),
        digest=embedder.source.digest,
        inputs=embedder.settings.inputs,
        dimension=embedder.dimension,
        family=embedder.family_evidence,
    )


def read_job(folder: Path) -> EmbedJob:
    """Reads the ``job.json`` of a folder of vectors.

    Raises:
        FoundryError: `folder` holds no vectors, or the file is damaged or of another version.
    """
    path = folder / JOB_FILE
    if not path.is_file():
        raise FoundryError(f"{folder} holds no vectors.", hint="Make them with `gme embed`.")
    try:
        raw = read_json(path, dict[str, Any])
        # Files of earlier versions have neither a format nor a corpus.
        if raw.get("format", 2) != 2 or "corpus" not in raw:
            raise FoundryError(
                f"{path} was written by another version of GME Foundry: it does not say which model made the vectors.",
                hint=_REEMBED,
            )
        return read_json(path, EmbedJob)
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint=_REEMBED) from error


def write_job(folder: Path, job: EmbedJob) -> None:
    """Writes the ``job.json`` of a folder of vectors, by one rename."""
    atomic_write(folder / JOB_FILE, job.model_dump_json(indent=1).encode())


def require_same_job(folder: Path, recorded: EmbedJob, job: EmbedJob) -> None:
    """Checks that the vectors in `folder`, made by the job `recorded`, may be completed by `job`.

    Raises:
        FoundryError: They may not; names what differs, with both values.
    """
    changes = {**_changed_files(recorded.corpus.files, job.corpus.files), **_encoding_changes(recorded, job)}
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{folder} holds vectors of another job: {', '.join(changes)} differ(s).", *lines]),
            hint="Give another --output, or delete the folder."
            if changes.keys() != {"corpus"}
            else "`gme embed --update` embeds what changed; another --output takes the whole.",
        )
    if recorded.shard_rows != job.shard_rows:
        raise FoundryError(
            f"{folder} is cut into shards of {recorded.shard_rows} rows, not of {job.shard_rows}; "
            "nothing else differs.",
            hint=f"Give --shard-rows {recorded.shard_rows} to go on, or another --output.",
        )


def require_same_encoding(folder: Path, recorded: EmbedJob, job: EmbedJob) -> None:
    """Checks that `job` would give equal rows the vectors that they have in `folder`, of the job `recorded`.

    Raises:
        FoundryError: Another model, its inputs, instruction or precision; names what differs, with both values.
    """
    changes = _encoding_changes(recorded, job)
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{folder} can't be updated: {', '.join(changes)} differ(s).", *lines]),
            hint="Old and new vectors would not be comparable: embed the whole corpus anew, without --update, into "
            "another folder.",
        )


def _encoding_changes(recorded: EmbedJob, job: EmbedJob) -> dict[str, str]:
    """Returns what differs beside the corpus, by name, with both values."""
    settings = {
        name: f"{getattr(recorded, name)!r} in the folder, now {getattr(job, name)!r}"
        for name in ("precision", "instruction", "dtype")
        if getattr(recorded, name) != getattr(job, name)
    }
    return {**model_changes(recorded.model, job.model), **settings}


def model_changes(recorded: ModelIdentity, model: ModelIdentity) -> dict[str, str]:
    """Returns what differs between two models, by name, with both values; empty for the same model."""
    changes = {}
    if recorded.digest != model.digest:
        changes["model"] = f"{_label(recorded)} in the folder, now {_label(model)}"
    before, now = _flat_settings(recorded.inputs), _flat_settings(model.inputs)
    for name, value in now.items():
        if before[name] != value:
            changes[name] = f"{before[name]!r} in the folder, now {value!r}"
    return changes


def require_comparable(queries: Path, corpus: Path) -> list[str]:
    """Checks that the vectors of two folders are comparable by inner products.

    Args:
        queries: Folder of vectors of queries.
        corpus: Folder of vectors that are searched.

    Returns:
        One line for each difference that may cost some accuracy.

    Raises:
        FoundryError: Other models or input settings made them, or the corpus has an instruction that the queries lack.
    """
    query_job, corpus_job = read_job(queries), read_job(corpus)
    changes = model_changes(corpus_job.model, query_job.model)
    if changes:
        lines = [f"  {name}: {change.replace('now', f'in {queries}')}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{queries} and {corpus} hold vectors of different models: they can't be compared.", *lines]),
            hint="Embed both with one model.",
        )
    if corpus_job.instruction is not None and corpus_job.instruction != query_job.instruction:
        raise FoundryError(
            f"{corpus} was embedded with the instruction {corpus_job.instruction!r}, {queries} with "
            f"{query_job.instruction!r}: documents have no instruction.",
            hint="Embed the corpus without --instruction, or swap the folders.",
        )
    return precision_notes(corpus_job.precision, query_job.precision)


def precision_notes(corpus: Precision, queries: Precision) -> list[str]:
    """Returns a warning about vectors that were computed in different precisions; empty for equal ones."""
    if corpus == queries:
        return []
    return [f"The corpus was computed in {corpus}, the queries in {queries}: scores may be off by up to 0.01."]


def _label(model: ModelIdentity) -> str:
    revision = f" at {model.revision[:_DIGEST_SHOWN]}" if model.revision else ""
    return f"{model.digest[:_DIGEST_SHOWN]} ('{model.name}'{revision})"


def _flat_settings(inputs: InputConfig) -> dict[str, object]:
    pictures = {f"pictures.{name}": value for name, value in inputs.pictures.model_dump().items()}
    return {**inputs.model_dump(exclude={"pictures"}), **pictures}


def _changed_files(recorded: dict[str, str], files: dict[str, str]) -> dict[str, str]:
    """Returns the first difference of the corpus' files, by name; empty for none."""
    for name in sorted(recorded.keys() | files.keys()):
        before, now = recorded.get(name), files.get(name)
        if before != now:
            values = [f"sha256 {digest[:_DIGEST_SHOWN]}" if digest else "not there" for digest in (before, now)]
            return {"corpus": f"{name}: {values[0]} when it was embedded, now {values[1]}"}
    return {}
