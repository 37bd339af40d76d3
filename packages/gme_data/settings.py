"""Frozen configuration: one pydantic model per step, unknown fields refused with a suggestion, YAML for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError, did_you_mean
from gme_data.structured import parse_yaml, read_regular


class Frozen(BaseModel):
    """Base of every configuration: immutable, strict about unknown fields."""

    # A number that is not finite has no place in JSON, so no key of a step could be made of it.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Fields that files of earlier versions may have, and what each is called now."""


class Sealable(Frozen):
    """A configuration that names files outside of the workspace."""

    digest: str = ""
    """Digest of the files; `sealed` computes it, so that a change of the files changes the step's key."""

    def sealed(self) -> Self:
        """Returns the configuration with the digest of the files as they are now; a digest that is set stays.

        Raises:
            FoundryError: A file or folder is missing, or of no kind that is read.
        """
        return self if self.digest else self.model_copy(update={"digest": sha256_json(self.contents())})

    def contents(self) -> list[Any]:
        """Returns what the digest covers: paths below the folders, and contents."""
        raise NotImplementedError


UNSHOWN_INPUT = "holds-a-secret"
"""The type of a validation error whose input is not shown, since it may hold a secret."""


def _plain_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if "@" in url or "?" in url or "#" in url:
        raise PydanticCustomError(
            UNSHOWN_INPUT, "an address without user, password and parameters: secrets belong in environment variables"
        )
    if not usable or not url.isprintable() or " " in url or "\\" in url:
        raise PydanticCustomError("address", "an address such as http://localhost:8000/v1")
    return url


Address = Annotated[str, AfterValidator(_plain_address)]
"""The address of a service; one with secrets is refused, since they would end in logs and records."""

_MAX_SHOWN = 80

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_config(path: Path, model: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Reads a YAML file into `model`.

    Args:
        path: The file.
        model: What it is read into.
        overrides: Fields to set on top of the file, such as ``stage_1.phases.0.steps=2``; values are YAML.

    Raises:
        FoundryError: The file is missing, is not YAML, or a field is unknown or out of range; names file and field.
    """
    raw, where = read_raw(path, overrides)
    return parse_config(raw, model, where=where)


def read_raw(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """Returns the fields of a YAML file with `overrides` set, not yet validated, and what to call them in an error.

    Raises:
        FoundryError: The file is missing or is not YAML, or an override names no field.
    """
    try:
        raw = parse_yaml(read_regular(path), where=str(path))
    except FileNotFoundError as error:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*.yaml"))) if path.parent.is_dir() else ""
        raise FoundryError(f"Config file not found: {path}.{near}", hint="Give a file with --config.") from error
    if not isinstance(raw, dict):
        raise FoundryError(f"{path}: expected a mapping of fields at the top level, found {type(raw).__name__}.")
    for override in overrides:
        _set(raw, override)
    where = " ".join([str(path), *overrides])
    # A NUL would reach the operating system in a path, and end there in a ValueError without the field's name.
    if (field := _with_nul(raw)) is not None:
        raise FoundryError(f"{where}: {field} holds a NUL character, which no name of a file and no text of ours has.")
    return raw, where


def _with_nul(value: object, name: str = "") -> str | None:
    """Returns the first field that holds a NUL; None if none does."""
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
        fields = (_with_nul(member, f"{name}.{key}" if name else str(key)) for key, member in members)
        return next((field for field in fields if field is not None), None)
    return name if isinstance(value, str) and "\0" in value else None


def _set(raw: dict[str, Any], override: str) -> None:
    """Sets one field in place; missing parent mappings are created."""
    name, equals, value = override.partition("=")
    *parents, last = name.split(".")
    if not equals or not last or not all(parents):
        raise FoundryError(f"--set {override}: expected FIELD=VALUE, such as stage_1.phases.0.steps=2.")
    target: Any = raw
    parsed = parse_yaml(value, where=f"--set {override}")
    try:
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        target[int(last) if isinstance(target, list) else last] = parsed
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise FoundryError(f"--set {override}: there is no such field to set.") from error


def parse_config(raw: object, model: type[ConfigT], *, where: str) -> ConfigT:
    """Validates `raw` as `model`.

    Raises:
        FoundryError: One line per bad field, with the field's path, what was expected, and a suggestion for a typo.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = error.errors()
        # Pydantic reports a list with bad entries as too short as well; only the entries are worth a line.
        reported = [
            detail
            for detail in details
            if detail["type"] != "too_short"
            or not any(other["loc"][: len(detail["loc"])] == detail["loc"] for other in details if other is not detail)
        ]
        lines = [f"  {_describe(detail, model)}" for detail in reported]
        raise FoundryError("\n".join([f"{where}: {len(lines)} bad field(s)", *lines])) from error


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        parent = _model_at(model, detail["loc"][:-1])
        renamed = parent.RENAMED if parent and issubclass(parent, Frozen) else {}
        # An old name is reported with its new one, before any guess at a typo.
        if now := renamed.get(str(detail["loc"][-1])):
            return f"{path}: this field is called {now} now."
        known = sorted(parent.model_fields) if parent else []
        suggestion = did_you_mean(str(detail["loc"][-1]), known)
        return f"{path}: unknown field.{suggestion}" + (f" Known fields: {', '.join(known)}." if known else "")
    value = repr(detail["input"])
    shown = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + " ..."
    suffix = "" if detail["type"] in ("missing", UNSHOWN_INPUT) else f" (found {shown})"
    return f"{path}: {detail['msg']}{suffix}"


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Returns the nested model that `loc` points into; None where the path leaves plain models (a union, a dict)."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue  # an index into a list of models: stay with the element type of the field before it
        field = current.model_fields.get(str(part)) if current else None
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type annotation has no narrower type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        model = _model_in(argument)
        if model:
            return model
    return None
