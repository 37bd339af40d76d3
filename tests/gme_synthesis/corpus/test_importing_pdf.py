"""PDF files become passages with a picture of their page; what can't be read is named, and costs nothing else."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pdf import write_pdf

from flows.chains import IMPORT
from gme_cli.init import init
from gme_data.errors import FoundryError
from gme_data.parquet import read_shards
from gme_data.steps import PlannedStep, execute
from gme_data.tables import RowError, open_table
from gme_synthesis.corpus.import_config import ImportConfig
from gme_synthesis.corpus.store import Corpus, open_imported

PDFIUM = pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed")
TEXTS = ["How to fill the tank.", "The pump is primed by hand.", "Nothing else can be done."]


def imported(workspace: Path, passages: Path, **settings: Any) -> tuple[Corpus, Counter[str]]:
    config = ImportConfig.model_validate({"passages": passages, "licence": "CC0-1.0", **settings}).sealed()
    folder = execute(PlannedStep(IMPORT, config, {}), workspace).folder
    return open_imported(folder), Counter(row["reason"] for row in read_shards(folder / "rejects", "rejects"))


@PDFIUM
def test_a_page_is_a_passage_with_its_picture_and_its_heading(tmp_path: Path) -> None:
    headings = [("Filling", 0), ("Priming the pump", 1)]
    write_pdf(tmp_path / "manual.pdf", TEXTS, title="The pump", headings=headings)
    corpus, rejects = imported(tmp_path, tmp_path / "manual.pdf")
    passages = list(corpus.passages())
    assert [passage.id for passage in passages] == [f"manual.pdf#page={number}" for number in (1, 2, 3)]
    assert [passage.text.strip() for passage in passages] == TEXTS
    assert [passage.title for passage in passages] == ["Filling", "Priming the pump", "Priming the pump"]
    assert passages[1].entity_group == passages[2].entity_group != passages[0].entity_group
    assert {corpus.images.load(passage.page).size for passage in passages} == {(768, 1024)}
    assert not rejects
    assert not corpus.captions, "a page is no picture of what it is about"


@PDFIUM
def test_without_an_outline_a_page_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_pdf(tmp_path / "data" / "a b.pdf", TEXTS[:2], title="The pump")
    write_pdf(tmp_path / "data" / "untitled.pdf", TEXTS[:1])
    passages = {passage.id: passage for passage in imported(tmp_path, tmp_path / "data")[0].passages()}
    assert {passage.title for passage in passages.values()} == {"The pump", "untitled"}
    assert len({passage.entity_group for passage in passages.values()}) == 3


@PDFIUM
def test_pdf_files_and_tables_make_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_pdf(tmp_path / "data" / "manual.pdf", TEXTS)
    (tmp_path / "data" / "notes.jsonl").write_text('{"body": "A note."}\n')
    corpus, _ = imported(tmp_path, tmp_path / "data", columns={"text": "body"})
    assert [passage.text.strip() for passage in corpus.passages()] == [*TEXTS, "A note."]


@PDFIUM
def test_what_cant_be_read_is_told_by_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    complete = write_pdf(data / "whole.pdf", TEXTS).read_bytes()
    (data / "broken.pdf").write_bytes(complete[:150])
    (data / "empty.pdf").write_bytes(b"")
    write_pdf(
        data / "locked.pdf",
        TEXTS,
        extra=f"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /O <{'11' * 32}> /U <{'22' * 32}> /P -4 >>",
    )
    write_pdf(data / "strip.pdf", TEXTS[:1], box=(14_000, 3))
    Image.new("RGB", (120, 80), "red").save(data / "scan.pdf")
    corpus, rejects = imported(tmp_path, data)
    assert len(corpus) == len(TEXTS)
    assert rejects == {"damaged-pdf": 2, "encrypted-pdf": 1, "too-large": 1, "no-text": 1}


@PDFIUM
def test_the_reader_that_ends_costs_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that the reader does not survive is refused, and those after it are read."""
    path = write_pdf(tmp_path / "manual.pdf", TEXTS)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nimport pypdfium2\nread = pypdfium2.PdfDocument.__getitem__\n"
        "pypdfium2.PdfDocument.__getitem__ = lambda self, at: os._exit(1) if at == 1 else read(self, at)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = list(open_table(path, pages=True).rows())
    assert [isinstance(row, RowError) for row in rows] == [False, True, False]
    assert rows[1].location == "manual.pdf, page 2"


@PDFIUM
def test_gme_init_sees_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(tmp_path / "manual.pdf", TEXTS, headings=[("Filling", 0)])
    monkeypatch.chdir(tmp_path)
    init("manual", passages=Path("manual.pdf"))
    shown = capsys.readouterr().out
    assert "3 rows in 1 file" in shown
    text = (tmp_path / "manual.yaml").read_text()
    assert 'passages: "manual.pdf"' in text
    assert "source: page, " in text


def test_without_the_package_it_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pdf(tmp_path / "manual.pdf", TEXTS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FoundryError, match="pypdfium2"):
        ImportConfig(passages=tmp_path).sealed()
