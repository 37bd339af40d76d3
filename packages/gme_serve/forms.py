"""Parses bodies that are forms. Texts stay bytes, so that `bodies` can refuse what is not UTF-8.

Knows the encodings of forms; `bodies` knows their fields.
"""

from __future__ import annotations

import io
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File
from starlette.datastructures import UploadFile

from gme_serve.errors import ApiError, invalid

_MAX_PARTS = 16
_MAX_TEXT_BYTES = 2**20
_Model = TypeVar("_Model", bound=BaseModel)


def parse_form(raw: bytes, content_type: str, kind: type[_Model]) -> _Model:
    """Parse the bytes of a form as `kind`. Large forms take long, so this must not run on the event loop.

    Raises:
        ApiError: 400; the body is no form, has more than 16 parts, a text of more than a MiB or a field twice, or is
            not valid as `kind`.
    """
    values: dict[str, Any] = {}

    def add(name: bytes | None, value: bytes | UploadFile) -> None:
        written = (name or b"").decode(errors="backslashreplace")
        if written in values:
            message = f"{written[:64]}: sent more than once; this form is of one picture."
            raise ApiError(400, message, code="repeated_field", param=written[:64])
        if len(values) == _MAX_PARTS:
            raise ApiError(400, f"A form of more than {_MAX_PARTS} parts.", code="too_many_fields")
        values[written] = value

    def add_text(field: Field) -> None:
        add(field.field_name, field.value or b"")

    def add_file(file: File) -> None:
        file.file_object.seek(0)
        name = (file.file_name or b"").decode(errors="replace")
        add(file.field_name, UploadFile(io.BytesIO(file.file_object.read()), filename=name))

    # The body is in memory already, so no part of it is spooled to disk.
    config = {"MAX_MEMORY_FILE_SIZE": len(raw) + 1, "MAX_FIELD_SIZE": _MAX_TEXT_BYTES, "MAX_HEADER_COUNT": _MAX_PARTS}
    try:
        parser = create_form_parser({"Content-Type": content_type.encode("latin-1")}, add_text, add_file, config=config)
        parser.write(raw)
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, f"The body is no form: {error}.", code="bad_form") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from error
