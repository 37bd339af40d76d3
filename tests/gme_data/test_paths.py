"""Names in records: what a file below the folder can be called passes as it is, all else is refused."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from gme_data.paths import BelowPath, FileName, check_below


@pytest.mark.parametrize(
    "path", ["a", "a/b.json", "größer/ä.txt", "...", "a..b", "x" * 255, "/".join(["y" * 200] * 10)]
)
def test_a_plain_path_passes(path: str) -> None:
    assert check_below(path) == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "a\0b", "\ud800", "x" * 256,
     "ä" * 128, "/".join(["y" * 200] * 11)],
)  # fmt: skip
def test_what_leaves_the_folder_or_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"below the folder|can be called|surrogates not allowed"):
        check_below(path)
    with pytest.raises(ValidationError):
        TypeAdapter(BelowPath).validate_python(path)


def test_a_name_is_that_of_one_file() -> None:
    names = TypeAdapter(FileName)
    assert names.validate_python("a.json") == "a.json"
    with pytest.raises(ValidationError, match="one file"):
        names.validate_python("a/b.json")
