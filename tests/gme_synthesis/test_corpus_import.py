"""A stranger's files become a corpus; what can't be used is named, what is missing stops the import."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from signal_flags import EXAMPLE, import_flags

from gme_data.errors import FoundryError
from gme_data.parquet import read_shards
from gme_data.steps import execute
from gme_synthesis.corpus.importing import CORPUS_IMPORT, ImportConfig
from gme_synthesis.corpus.store import Corpus, open_corpus

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Alfa is white and blue.", "title": "Alfa", "aliases": ["A"], "picture": "alfa-1.png"},
    {"id": "b", "text": "Bravo is red.", "title": "Bravo", "aliases": [], "picture": "nowhere.png"},
    {"id": "b", "text": "Bravo again.", "title": "Bravo", "aliases": [], "picture": ""},
    {"id": "c", "text": "  ", "title": "", "aliases": [], "picture": ""},
    {"id": "charlie-1", "text": "Charlie has five stripes.", "title": "", "aliases": [], "picture": ""},
]


def imported(workspace: Path, passages: Path, **config: Any) -> tuple[Corpus, Counter[str]]:
    given = {"passages": passages, "pictures": EXAMPLE / "pictures", "licence": "CC0-1.0", **config}
    folder = execute(CORPUS_IMPORT, ImportConfig.model_validate(given).sealed(), {}, workspace).folder
    return open_corpus(folder), Counter(row["reason"] for row in read_shards(folder / "rejects", "rejects"))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows({**row, "aliases": "|".join(row["aliases"])} for row in rows)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv", "tsv"])
def test_every_kind_of_file_gives_the_same_corpus(tmp_path: Path, suffix: str) -> None:
    corpus, rejects = imported(tmp_path, write_rows(tmp_path / f"p.{suffix}", ROWS))
    passages = {one.id: one for one in corpus.passages()}
    assert list(passages) == ["a", "b", "charlie-1"]
    assert len(corpus) == 3
    assert rejects == {"picture-not-found": 1, "same-id-twice": 1, "no-text": 1}
    assert passages["a"].aliases == ("A",)
    assert corpus.images.load(passages["a"].picture).size == (80, 80)
    assert passages["b"].picture == ""
    assert passages["charlie-1"].picture  # a picture that is called as the passage
    assert passages["a"].entity_group == "alfa"
    captions = {one.caption for one in corpus.captions.values()}
    assert {"Alfa", "bravo", "zulu"} <= captions  # the title beside it, or the words of the file name
    assert corpus.captions[passages["a"].picture].entity_group == "alfa"


def test_pictures_from_parquet_as_datasets_keeps_them(tmp_path: Path) -> None:
    files = {name: (EXAMPLE / "pictures" / name).read_bytes() for name in ("alfa-1.png", "bravo-1.png")}
    rows = [{"image": {"bytes": data, "path": name}, "caption": f"the flag {name[:5]}"} for name, data in files.items()]
    rows.append({"image": {"bytes": b"<html>", "path": "page.png"}, "caption": "no picture"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    passages = write_rows(tmp_path / "p.jsonl", ROWS[:1])
    corpus, rejects = imported(tmp_path, passages, pictures=tmp_path / "pictures.parquet")
    assert rejects == {"not-a-picture": 1}
    assert {one.caption for one in corpus.captions.values()} == {"the flag alfa-", "the flag bravo"}


def test_text_alone_is_enough(tmp_path: Path) -> None:
    corpus, _ = imported(
        tmp_path, write_rows(tmp_path / "p.jsonl", [{"text": "One."}, {"text": "Two."}]), pictures=None
    )
    assert [one.id for one in corpus.passages()] == ["00000000", "00000001"]
    assert {one.entity_group for one in corpus.passages()} == {"00000000", "00000001"}


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([{"txt": "a"}], {}, r"no column 'text' for 'text'\. Did you mean 'txt'\?"),
        ([{"text": "a"}], {"columns": {"titel": "t"}}, r"no 'titel'\. Did you mean 'title'\?"),
        ([{"text": "a"}], {"columns": {"title": "heading"}}, "no column 'heading' for 'title'"),
        ([{"text": ""}], {}, "no passage that can be used"),
        ([{"id": "x", "text": "a", "facts": "{broken"}], {}, r"no passage that can be used: bad-facts \(1\)"),
        ([{"id": "x", "text": "a", "facts": "3"}], {}, r"no passage that can be used: bad-facts \(1\)"),
        ([{"text": "a"}], {"pictures": "nowhere"}, "nowhere: There is no such folder"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any], message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        imported(tmp_path, write_rows(tmp_path / "p.jsonl", rows), **config)


def test_one_bad_row_costs_itself_and_no_more(tmp_path: Path) -> None:
    rows = [{"id": 0, "text": "One.", "facts": {"a": "b"}}, {"id": 1, "text": "Two.", "facts": "{broken"}]
    corpus, rejects = imported(tmp_path, write_rows(tmp_path / "p.jsonl", rows))
    (passage,) = corpus.passages()
    assert (passage.id, passage.facts) == ("0", {"a": "b"})  # 0 is a name like any other
    assert rejects == {"bad-facts": 1}


def test_what_data_frames_write_for_nothing_is_nothing(tmp_path: Path) -> None:
    nan = float("nan")
    rows = [{"id": "a", "text": "One.", "title": nan, "kind": nan, "facts": nan}, {"id": "b", "text": nan}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus, rejects = imported(tmp_path, tmp_path / "p.jsonl")
    (passage,) = corpus.passages()
    assert (passage.title, passage.kind, passage.entity_group, passage.facts) == ("", "", "a", {})
    assert rejects == {"no-text": 1}


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "passages.jsonl").write_text('{"text": "a"}\n{broken\n')
    (tmp_path / "x.doc").write_text("x")
    (tmp_path / "x.parquet").write_text("x")
    for name, message in {
        "passages.jsonl": "line 2: not JSON",
        "pasages.jsonl": "Did you mean 'passages.jsonl'",
        "x.doc": "passages are read from",
        "x.parquet": "not a readable parquet file",
    }.items():
        with pytest.raises(FoundryError, match=message):
            imported(tmp_path, tmp_path / name)


def test_a_megabyte_passage_passes_through_csv(tmp_path: Path) -> None:
    rows = [{"id": "big", "text": "word " * 200_000, "title": "", "aliases": [], "picture": ""}]
    corpus, _ = imported(tmp_path, write_rows(tmp_path / "p.csv", rows))
    (passage,) = corpus.passages()
    assert len(passage.text) == 1_000_000


def test_changed_files_are_imported_again_and_equal_ones_are_not(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", ROWS)
    config = ImportConfig(passages=path)
    first = execute(CORPUS_IMPORT, config.sealed(), {}, tmp_path)
    assert execute(CORPUS_IMPORT, config.sealed(), {}, tmp_path).reused
    write_rows(path, ROWS[:1])
    again = execute(CORPUS_IMPORT, config.sealed(), {}, tmp_path)
    assert not again.reused
    assert again.manifest.content != first.manifest.content


def test_the_example_is_whole(tmp_path: Path) -> None:
    counts = import_flags(tmp_path).manifest.counts
    assert (counts["passages"], counts["pictures"], counts["rejects"]) == (51, 52, 0)
