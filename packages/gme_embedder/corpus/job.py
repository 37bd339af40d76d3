"""What a folder of vectors was made of and by whom: its identity, noted once, compared wherever two artefacts meet.

What decides a vector is known by content: tables and models by their digests, wherever they lie and however they are
called. What decides none is no part of it: the device, what happens at a bad row, the name that a model went by.
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

JOB = "job.json"
Precision = Literal["float32", "bfloat16", "float16"]
StoredDtype = Literal["float32", "float16"]
_EMBED_AGAIN = "Embed the corpus again into another folder: `gme embed --input TABLES --output ANOTHER`."
_SHORT = 12


class ModelIdentity(Frozen):
    """The model that made vectors."""

    name: str
    """What the user called it: a folder, a hub name, or the digest of a registered model. Never compared."""
    revision: str | None = None
    """The commit on the hub that the name stood for. Never compared: the digest covers it."""
    digest: str
    """Of the files that were loaded; see `gme_embedder.model_files.identity.model_digest`."""
    inputs: InputConfig
    """Input settings that were in force, whether they came from the folder or from the call."""
    dimension: int = Field(ge=1)
    """Size of a vector, d."""
    family: str = ""
    """What says that its inputs are made as GME's, such as ``gme.json`` or ``--inputs gme``. Never compared."""


class CorpusIdentity(Frozen):
    """The tables that vectors were made of, pictures inside them included; pictures beside them are known by shard."""

    files: dict[str, str]
    """sha256 by path below the folder, which orders the rows; a single file is ``.``, however it is called."""
    rows: int = Field(ge=0)
    """Of all files."""


class Job(Frozen):
    """What decides the vectors of a folder; ``job.json``."""

    format: Literal[2] = 2
    """Of this record and of the files beside it."""
    corpus: CorpusIdentity
    """What was embedded."""
    model: ModelIdentity
    """What embedded it."""
    precision: Precision = "float32"
    """Of the computation."""
    instruction: str | None = None
    """Of queries; None for documents."""
    shard_rows: int = Field(default=8192, ge=1)
    """Rows of a shard."""
    dtype: StoredDtype = "float32"
    """Of the vectors on disk."""
    shards_in: str = Field(default=".", pattern=r"^(\.|shards-[0-9a-f]{16})$")
    """Folder of the shards, below that of this record: ``.``, or the one that the last update made. Never compared."""

    def digest(self) -> str:
        """sha256 of what decides a vector; every shard carries it, so shards of two jobs are never taken for one."""
        ignored: dict[str, Any] = {"model": {"name", "revision", "family"}, "shards_in": True}
        return sha256_json(self.model_dump(mode="json", exclude=ignored))

    def has_retrained_model(self, noted: Job) -> bool:
        """Whether this is the job `noted` with another model under the same name, and differs in nothing else."""
        known = {name: getattr(noted.model, name) for name in ("digest", "revision", "family")}
        model = self.model.model_copy(update=known)
        renamed = self.model_copy(update={"model": model, "shards_in": noted.shards_in})
        return self.model.digest != noted.model.digest and renamed == noted


def identify_model(embedder: Embedder, name: str) -> ModelIdentity:
    """What vectors note of the model that makes them.

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


def read_job(folder: Path) -> Job:
    """Read the ``job.json`` of a folder of vectors.

    Raises:
        FoundryError: `folder` holds no vectors, or the file is damaged or of another version.
    """
    path = folder / JOB
    if not path.is_file():
        raise FoundryError(f"{folder} holds no vectors.", hint="Make them with `gme embed`.")
    try:
        raw = read_json(path, dict[str, Any])
        # The records of earlier versions have neither a format nor a corpus.
        if raw.get("format", 2) != 2 or "corpus" not in raw:
            raise FoundryError(
                f"{path} was written by another version of GME Foundry: it does not say which model made the vectors.",
                hint=_EMBED_AGAIN,
            )
        return read_json(path, Job)
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint=_EMBED_AGAIN) from error


def write_job(folder: Path, job: Job) -> None:
    """Write the ``job.json`` of a folder of vectors, by one rename."""
    atomic_write(folder / JOB, job.model_dump_json(indent=1).encode())


def require_same_job(folder: Path, noted: Job, job: Job) -> None:
    """Check that the vectors in `folder`, made by the job `noted`, may be completed by `job`.

    Raises:
        FoundryError: They may not; names what differs, with both values.
    """
    changes = {**_changed_files(noted.corpus.files, job.corpus.files), **_maker_changes(noted, job)}
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{folder} holds vectors of another job: {', '.join(changes)} differ(s).", *lines]),
            hint="Give another --output, or delete the folder."
            if changes.keys() != {"corpus"}
            else "`gme embed --update` embeds what changed; another --output takes the whole.",
        )
    if noted.shard_rows != job.shard_rows:
        raise FoundryError(
            f"{folder} is cut into shards of {noted.shard_rows} rows, not of {job.shard_rows}; nothing else differs.",
            hint=f"Give --shard-rows {noted.shard_rows} to go on, or another --output.",
        )


def require_same_maker(folder: Path, noted: Job, job: Job) -> None:
    """Check that `job` would give what it shares with the job `noted`, of which `folder` is, the same vectors.

    Raises:
        FoundryError: Another model, its inputs, instruction or precision; names what differs, with both values.
    """
    changes = _maker_changes(noted, job)
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{folder} can't be updated: {', '.join(changes)} differ(s).", *lines]),
            hint="Old and new vectors would not be comparable: embed the whole corpus anew, without --update, into "
            "another folder.",
        )


def _maker_changes(noted: Job, job: Job) -> dict[str, str]:
    """What differs beside the corpus, by name, with both values."""
    settings = {
        name: f"{getattr(noted, name)!r} in the folder, now {getattr(job, name)!r}"
        for name in ("precision", "instruction", "dtype")
        if getattr(noted, name) != getattr(job, name)
    }
    return {**model_changes(noted.model, job.model), **settings}


def model_changes(noted: ModelIdentity, model: ModelIdentity) -> dict[str, str]:
    """What differs between two models, by name, with both values; empty for one and the same."""
    changes = {}
    if noted.digest != model.digest:
        changes["model"] = f"{_label(noted)} in the folder, now {_label(model)}"
    before, now = _flat(noted.inputs), _flat(model.inputs)
    for name, value in now.items():
        if before[name] != value:
            changes[name] = f"{before[name]!r} in the folder, now {value!r}"
    return changes


def require_comparable(queries: Path, corpus: Path) -> list[str]:
    """Check that the vectors of two folders lie in one space, so that their inner products mean something.

    Args:
        queries: Folder of vectors of queries.
        corpus: Folder of vectors that are searched.

    Returns:
        What may cost some accuracy: a line for each.

    Raises:
        FoundryError: Other models or input settings made them, or the corpus has an instruction that the queries lack.
    """
    asking, searched = read_job(queries), read_job(corpus)
    changes = model_changes(searched.model, asking.model)
    if changes:
        lines = [f"  {name}: {change.replace('now', f'in {queries}')}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"{queries} and {corpus} hold vectors of different models: they can't be compared.", *lines]),
            hint="Embed both with one model.",
        )
    if searched.instruction is not None and searched.instruction != asking.instruction:
        raise FoundryError(
            f"{corpus} was embedded with the instruction {searched.instruction!r}, {queries} with "
            f"{asking.instruction!r}: documents have no instruction.",
            hint="Embed the corpus without --instruction, or swap the folders.",
        )
    return precision_notes(searched.precision, asking.precision)


def precision_notes(corpus: Precision, queries: Precision) -> list[str]:
    """What to tell of vectors that were computed in different precisions: a line, or none."""
    if corpus == queries:
        return []
    return [f"The corpus was computed in {corpus}, the queries in {queries}: scores may be off by up to 0.01."]


def _label(model: ModelIdentity) -> str:
    revision = f" at {model.revision[:_SHORT]}" if model.revision else ""
    return f"{model.digest[:_SHORT]} ('{model.name}'{revision})"


def _flat(inputs: InputConfig) -> dict[str, object]:
    pictures = {f"pictures.{name}": value for name, value in inputs.pictures.model_dump().items()}
    return {**inputs.model_dump(exclude={"pictures"}), **pictures}


def _changed_files(noted: dict[str, str], files: dict[str, str]) -> dict[str, str]:
    """The corpus' first difference, by name; empty for none."""
    for name in sorted(noted.keys() | files.keys()):
        before, now = noted.get(name), files.get(name)
        if before != now:
            values = [f"sha256 {digest[:_SHORT]}" if digest else "not there" for digest in (before, now)]
            return {"corpus": f"{name}: {values[0]} when it was embedded, now {values[1]}"}
    return {}
