"""Detects whether a model is of the GME family, whose inputs have GME's prompt, positions and limits of pictures.

Other families of embedders have the same backbones, so their weights load, and with GME's prompt they give vectors that
look right and are not. The family is read from a handful of JSON files and from the folder's name. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gme_data.errors import FoundryError
from gme_data.structured import read_json
from gme_data.verified import VerifiedFolder
from gme_embedder.model_files.file_names import ADAPTER_CONFIG, CONFIG, NO_LIMIT, PROCESSOR, SETTINGS, is_adapter

Inputs = Literal["gme"]
"""How to make the inputs of a model whose folder does not say it."""

_PROMPTS, _MODULES, _SCRIPT = "config_sentence_transformers.json", "modules.json", "gme_inference.py"
_CLASS_FILES = (CONFIG, PROCESSOR, "processor_config.json", "tokenizer_config.json")
_QWEN_CLASS = re.compile(r"Qwen(2|2_5_|3)_?VL(ForConditionalGeneration|Model|Processor|ImageProcessor(Fast)?|Config)")
_GME = re.compile(r"(?<![a-z])gme(?![a-z])|Gme(?![a-z])", re.ASCII)
_GME_NAME = re.compile(r"gme[-_.]?qwen", re.IGNORECASE)
_OTHER_NAME = re.compile(
    r"vl[-_.]?embedding|vl[-_.]?reranker|vlm2vec|col-?(qwen|pali|smol|vision|embed)|jina-(embed|clip|rerank)|nomic-embed"
    r"|(?<![a-z])(e5-v|e5-omni|bge|mmret|lamra|unime|dse|llave|visrag|mm-embed|ops-mm|lco-embedding)(?![a-z])",
    re.IGNORECASE,
)
_OTHER_HUB_NAME = re.compile(_OTHER_NAME.pattern + r"|(?<![a-z])(embed|embeddings?|reranker|retriever)(?![a-z])", re.I)
"""Names of other families on the hub, where a name says what a model is; a local folder may just be called `embed`."""
_SNAPSHOT = re.compile(r"models--(?P<name>[^/]+)/snapshots/[^/]+$")


@dataclass(frozen=True, slots=True)
class Family:
    """What the files and the name of a folder say about its family.

    Attributes:
        is_gme: Whether it is GME; None if they say nothing, as in the folders that Qwen publishes.
        evidence: The file or name that says so; empty if none does.
    """

    is_gme: bool | None
    evidence: str = ""


def require_gme(folder: Path, inputs: Inputs | None = None, *, above: Sequence[Path] = ()) -> str:
    """Checks that inputs made as GME's are right for a model.

    Args:
        folder: As `locate` returns it. For adapters, their folder and their base are both checked.
        inputs: ``gme`` decides for a folder that says nothing; one of another family is refused all the same.
        above: Folders of the adapters that have this folder as their base.

    Returns:
        The evidence, for records.

    Raises:
        FoundryError: The folder says that it is of another family, or nothing and `inputs` is None; a file can't be
            read, or is not named by the manifest of the folder; adapters whose base is not there, or is built on them.
    """
    if inputs not in (None, "gme"):
        raise FoundryError(f"Unknown inputs '{inputs}'.", hint="The only value is gme.")
    VerifiedFolder.containing(folder)
    family = read_family(folder)
    if family.is_gme is False:
        raise _of_another_family(str(folder), family.evidence)
    if is_adapter(folder):
        # Imported here, since adapter_config imports locate, which imports this module.
        from gme_embedder.model_files.adapter_config import base_folder, read_adapter

        base = base_folder(read_adapter(folder), above)
        evidence = require_gme(base, "gme" if family.is_gme else inputs, above=[*above, folder])
        return family.evidence or evidence
    if family.is_gme is None and inputs is None:
        raise FoundryError(
            f"{folder} does not say how its inputs are made: it has no {SETTINGS} and no file or name of a released "
            "GME model.",
            hint="A base to train from needs nothing. To embed with it as if it were a GME model, give --inputs gme, "
            'in Python inputs="gme".',
        )
    return family.evidence or "as chosen by inputs gme"


def refuse_other_name(name: str) -> None:
    """Refuses a name on the hub before anything is fetched.

    Raises:
        FoundryError: It is that of another family.
    """
    if _OTHER_HUB_NAME.search(name) and not _GME_NAME.search(name):
        raise _of_another_family(name, f"the name {name}")


def read_family(folder: Path) -> Family:
    """Returns what a folder says about its family; for adapters, without their base.

    Classes and names of another family count first, then those of GME. Modules and prompts of sentence-transformers
    tell an embedder from a base, but GME's have them too.

    Raises:
        FoundryError: A file is no JSON.
    """
    # Our own file decides: whoever wrote it knew how the inputs are made.
    if (folder / SETTINGS).is_file():
        return Family(is_gme=True, evidence=SETTINGS)
    statements = [*_names(folder), *_classes(folder)]
    # Another family first: its vectors would be wrong without any sign of it.
    for is_gme in (False, True):
        evidence = [statement.evidence for statement in statements if statement.is_gme is is_gme]
        if evidence:
            return Family(is_gme, "; ".join(dict.fromkeys(evidence)))
    if (folder / _SCRIPT).is_file():
        return Family(is_gme=True, evidence=_SCRIPT)
    parts = "; ".join(_sentence_transformers(folder))
    return Family(is_gme=False, evidence=parts) if parts else Family(is_gme=None)


def _of_another_family(what: str, evidence: str) -> FoundryError:
    return FoundryError(
        f"{what} says of itself that it is not a GME model: {evidence}. With the prompt and the pictures of GME its "
        "vectors would be wrong.",
        hint="Use the library that it was published for; `gme umrb run --model mteb:NAME` scores what mteb can load.",
    )


def _names(folder: Path) -> Iterator[Family]:
    """Yields evidence from the name on the hub, the folder's name, and the name that it was saved under."""
    snapshot = _SNAPSHOT.search(folder.as_posix())
    hub_names = [snapshot["name"].replace("--", "/")] if snapshot else []
    for file, field in ((CONFIG, "_name_or_path"), (ADAPTER_CONFIG, "base_model_name_or_path")):
        name = _fields(folder / file).get(field)
        if isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            hub_names.append(name)
    for name in hub_names:
        if _GME_NAME.search(name):
            yield Family(is_gme=True, evidence=f"the name {name}")
        elif _OTHER_HUB_NAME.search(name):
            yield Family(is_gme=False, evidence=f"the name {name}")
    for name in dict.fromkeys((folder.name, folder.resolve().name)):
        if _GME_NAME.search(name):
            yield Family(is_gme=True, evidence=f"the name {name}")
        elif _OTHER_NAME.search(name):
            yield Family(is_gme=False, evidence=f"the name {name}")


def _classes(folder: Path) -> Iterator[Family]:
    """Yields evidence from the classes that the files name, other than those of the backbones."""
    for file in _CLASS_FILES:
        fields = _fields(folder / file)
        for field in ("architectures", "auto_map", "processor_class"):
            for name in _strings(fields.get(field)):
                if _GME.search(name):
                    yield Family(is_gme=True, evidence=f"{file}: {field} {name}")
                elif field == "auto_map" or not _QWEN_CLASS.fullmatch(name.rpartition(".")[2]):
                    yield Family(is_gme=False, evidence=f"{file}: {field} {name}")


def _sentence_transformers(folder: Path) -> Iterator[str]:
    """Yields what makes the folder an embedder of sentence-transformers: its modules, and non-empty prompts."""
    if (folder / _MODULES).is_file():
        modules = read_json(folder / _MODULES, list[Any])
        yield f"{_MODULES}: " + ", ".join(
            str(module.get("type")) if isinstance(module, dict) else str(module) for module in modules
        )
    if (folder / _PROMPTS).is_file():
        prompts = _fields(folder / _PROMPTS).get("prompts")
        if texts := [text for text in _strings(prompts) if text]:
            yield f"{_PROMPTS}: prompts " + ", ".join(f"'{text[:100]}'" for text in texts)


def _fields(path: Path) -> dict[str, Any]:
    """Returns the fields of a JSON file; {} if there is no file."""
    return read_json(path, dict[str, Any], max_integer=NO_LIMIT) if path.is_file() else {}


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yields all texts in a JSON value, but not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _strings(member)
