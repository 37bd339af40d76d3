"""A stranger's files become a corpus; what can't be used is named, what is missing stops the import."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from signal_flags import EXAMPLE, import_flags

from flows.chains import IMPORT
from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.parquet import read_shards
from gme_data.settings import parse_config
from gme_data.steps import PlannedStep, execute
from gme_synthesis.corpus.import_config import ImportConfig
from gme_synthesis.corpus.importing import ImportSummary
from gme_synthesis.corpus.store import Corpus, open_imported

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Alfa is white and blue.", "title": "Alfa", "aliases": ["A"], "picture": "alfa-1.png"},
    {"id": "b", "text": "Bravo is red.", "title": "Bravo", "aliases": [], "picture": "nowhere.png"},
    {"id": "b", "text": "Bravo again.", "title": "Bravo", "aliases": [], "picture": ""},
    {"id": "c", "text": "  ", "title": "", "aliases": [], "picture": ""},
    {"id": "charlie-1", "text": "Charlie has five stripes.", "title": "", "aliases": [], "picture": ""},
]


def imported(workspace: Path, passages: Path, **config: Any) -> tuple[Corpus, Counter[str]]:
    settings = {"passages": passages, "pictures": EXAMPLE / "pictures", "licence": "CC0-1.0", **config}
    folder = execute(PlannedStep(IMPORT, ImportConfig.model_validate(settings).sealed(), {}), workspace).folder
    return open_imported(folder), Counter(row["reason"] for row in read_shards(folder / "rejects", "rejects"))


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
    passages = {passage.id: passage for passage in corpus.passages()}
    assert list(passages) == ["a", "b", "charlie-1"]
    assert len(corpus) == 3
    assert rejects == {"picture-not-found": 1, "same-id-twice": 1, "no-text": 1}
    assert passages["a"].aliases == ("A",)
    assert corpus.images.load(passages["a"].picture).size == (80, 80)
    assert passages["b"].picture == ""
    assert passages["charlie-1"].picture  # a picture that is called as the passage
    assert passages["a"].entity_group == "alfa"
    captions = {caption.caption for caption in corpus.captions.values()}
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
    assert {caption.caption for caption in corpus.captions.values()} == {"the flag alfa-", "the flag bravo"}


def test_text_alone_is_enough(tmp_path: Path) -> None:
    corpus, _ = imported(
        tmp_path, write_rows(tmp_path / "p.jsonl", [{"text": "One."}, {"text": "Two."}]), pictures=None
    )
    assert [passage.id for passage in corpus.passages()] == ["00000000", "00000001"]
    assert {passage.entity_group for passage in corpus.passages()} == {"00000000", "00000001"}


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([{"txt": "a"}], {}, r"no column 'text'\. Did you mean 'txt'\?"),
        ([{"text": "a"}], {"columns": {"title": "heading"}}, "no column 'heading'"),
        ([{"text": ""}], {}, "no passage that can be used"),
        (
            [{"id": "x", "text": "a", "facts": "{broken"}],
            {},
            r"no passage that can be used: 1 x bad-facts, first p\.jsonl, line 1: column 'facts'",
        ),
        (
            [{"id": "x", "text": "a", "facts": "3"}],
            {},
            r"no passage that can be used: 1 x bad-facts, first p\.jsonl, line 1: column 'facts'",
        ),
        ([{"text": "a"}], {"pictures": "nowhere"}, "nowhere: There is no such folder"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, rows: list[dict[str, Any]], config: dict[str, Any], message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        imported(tmp_path, write_rows(tmp_path / "p.jsonl", rows), **config)


def test_a_column_that_passages_do_not_have_is_a_bad_config() -> None:
    with pytest.raises(FoundryError, match=r"columns: .*no 'titel'\. Did you mean 'title'\?"):
        parse_config({"columns": {"titel": "t"}}, ImportConfig, where="own.yaml")


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
    (tmp_path / "passages.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "x.doc").write_text("x")
    (tmp_path / "x.parquet").write_text("x")
    for name, message in {
        "pasages.jsonl": "Did you mean 'passages.jsonl'",
        "x.doc": "not a table that is read",
        "x.parquet": "not a readable Parquet file",
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
    first = execute(PlannedStep(IMPORT, config.sealed(), {}), tmp_path)
    assert execute(PlannedStep(IMPORT, config.sealed(), {}), tmp_path).reused
    write_rows(path, ROWS[:1])
    second = execute(PlannedStep(IMPORT, config.sealed(), {}), tmp_path)
    assert not second.reused
    assert second.manifest.content != first.manifest.content


def test_the_example_is_whole(tmp_path: Path) -> None:
    counts = import_flags(tmp_path).manifest.counts
    assert (counts["passages"], counts["pictures"], counts["rejects"]) == (51, 52, 0)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def summary_of(workspace: Path) -> dict[str, tuple[int, str]]:
    summary = ImportSummary.read(workspace / "data" / "corpus")
    return {reason.reason: (reason.rows, reason.first) for reason in summary.reasons}


def test_no_cell_becomes_the_repr_of_a_python_object(tmp_path: Path) -> None:
    rows = [
        {
            "id": 1,
            "text": ["The first sentence.", "The second one."],
            "title": 1984,
            "facts": {"n": 3, "in": ["a", "b"]},
        },
        {"id": 2, "text": {"en": "A passage.", "de": "Ein Absatz."}},
        {"id": 3, "text": True},
        {"id": 4, "text": "A passage.", "title": {"en": "A title"}},
        {"id": 5, "text": "A passage.", "aliases": {"a": 1}},
        {"id": 6, "text": "A passage.", "facts": {"a": {"b": 1}}},
        {"id": [7], "text": "A passage."},
        {"id": 8.5, "text": "A passage."},
        {"id": None, "text": "A passage."},
        {"text": "A passage."},
        {"id": 9.0, "text": "Nine."},
    ]
    corpus, rejects = imported(tmp_path, write_lines(tmp_path / "p.jsonl", rows), pictures=None)
    first, last = corpus.passages()
    assert (first.id, first.text, first.title) == ("1", "The first sentence. The second one.", "1984")
    assert first.facts == {"n": "3", "in": "a, b"}
    assert (last.id, last.text) == ("9", "Nine.")
    assert rejects == {"not-a-text": 3, "not-a-list": 1, "bad-facts": 1, "bad-id": 2, "no-id": 2}
    assert summary_of(tmp_path)["no-id"] == (2, "p.jsonl, line 9: column 'id': expected an id, found nothing")


def test_broken_rows_cost_themselves_and_are_told_by_line(tmp_path: Path) -> None:
    rows = [
        '{"id": "1", "text": "One."}',
        "{broken",
        '{"id": "2", "text": "cut \\ud83d off"}',
        '{"id": "3", "text": "x"}',
    ]
    corpus, rejects = imported(tmp_path, write_lines(tmp_path / "p.jsonl", rows), pictures=None)
    assert [passage.id for passage in corpus.passages()] == ["1", "3"]
    assert rejects == {"not-json": 1, "bad-unicode": 1}
    assert summary_of(tmp_path)["not-json"][1].startswith("p.jsonl, line 2: not JSON")
    assert summary_of(tmp_path)["bad-unicode"][1].startswith("p.jsonl, line 3: column 'text'")


def test_an_id_in_two_files_is_told_with_both_places(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    (folder / "below").mkdir(parents=True)
    write_lines(folder / "a.jsonl", [{"id": "1", "text": "One."}])
    (folder / "below" / "B.TSV").write_text('id\ttext\n1\t"One again.\n2\tTwo.\n')
    (folder / "notes.docx").write_text("x")
    corpus, rejects = imported(tmp_path, folder, pictures=None)
    assert [(passage.id, passage.text) for passage in corpus.passages()] == [("1", "One."), ("2", "Two.")]
    assert rejects == {"same-id-twice": 1}
    _, first = summary_of(tmp_path)["same-id-twice"]
    assert first.startswith("below/B.TSV, line 2: the id '1' stands at a.jsonl, line 1")
    assert ImportSummary.read(tmp_path / "data" / "corpus").lines()[-1] == "passed over: 1 .docx (notes.docx)"


def test_long_ids_are_whole(tmp_path: Path) -> None:
    ids = [f"https://example.org/{'section/' * 40}?page={n}" for n in (1, 2)]
    corpus, rejects = imported(
        tmp_path, write_lines(tmp_path / "p.jsonl", [{"id": id_, "text": "A text."} for id_ in ids]), pictures=None
    )
    assert [passage.id for passage in corpus.passages()] == ids
    assert not rejects


def test_titles_names_and_captions_are_cleaned_as_passages_are(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "text": "A passage.", "title": "Donau\u00addampf", "aliases": ["<b>AT&amp;T</b>"]},
        {"id": "2", "text": "A passage.", "title": "Donaudampf", "facts": {"a": "\u0645\u06cc\u200c\u062e"}},
    ]
    data = picture(tmp_path / "red.png", "red").read_bytes()
    pictures = [{"name": "a", "bytes": data, "caption": "Sil&shy;ben"}]
    pq.write_table(pa.Table.from_pylist(pictures), tmp_path / "pictures.parquet")
    corpus, _ = imported(tmp_path, write_lines(tmp_path / "p.jsonl", rows), pictures=tmp_path / "pictures.parquet")
    first, second = corpus.passages()
    assert (first.title, first.aliases, first.entity_group) == ("Donaudampf", ("AT&T",), second.entity_group)
    assert second.facts == {"a": "\u0645\u06cc\u200c\u062e"}
    assert [caption.caption for caption in corpus.captions.values()] == ["Silben"]


NFC, NFD = "caf\u00e9", "cafe\u0301"


def picture(path: Path, colour: str, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")
    return path


def rows_with_pictures(*names: str) -> list[dict[str, str]]:
    return [{"id": f"n{number}", "text": "A text.", "picture": name} for number, name in enumerate(names)]


def test_pictures_are_found_by_the_names_that_people_write(tmp_path: Path) -> None:
    pics = tmp_path / "pics"
    picture(pics / "a.png", "red")
    picture(pics / f"{NFD}.png", "blue")
    picture(pics / "Below" / "b.jfif", "green")
    names = ["a.png", "./a.png", "pics/a.png", "a.png ", f"{NFC}.png", "A.PNG", "below\\b.jfif", "a", f"{pics}/a.png"]
    table = write_lines(tmp_path / "p.jsonl", rows_with_pictures(*names))
    corpus, rejects = imported(tmp_path, table, pictures=pics)
    colours = [corpus.images.load(passage.picture).getpixel((0, 0)) for passage in corpus.passages()]
    red, green, blue = (255, 0, 0), (0, 128, 0), (0, 0, 255)
    assert colours == [red, red, red, red, blue, red, green, red, red]
    assert not rejects


def test_a_name_that_means_two_pictures_is_told(tmp_path: Path) -> None:
    pics = tmp_path / "pics"
    for name, colour in {"cats/1.png": "red", "dogs/1.png": "blue", "x.png": "red", "X.PNG": "blue"}.items():
        picture(pics / name, colour)
    rows = [{"id": "1", "text": "By its stem."}, *rows_with_pictures("x.png", "X.png", "1.png", "mice/1.png")]
    corpus, rejects = imported(tmp_path, write_lines(tmp_path / "p.jsonl", rows), pictures=pics)
    assert [bool(passage.picture) for passage in corpus.passages()] == [False, True, False, False, False]
    assert rejects == {"picture-ambiguous": 2, "picture-not-found": 2}
    assert "cats/1.png and dogs/1.png" in summary_of(tmp_path)["picture-ambiguous"][1]
    assert "Did you mean 'cats/1.png'?" in summary_of(tmp_path)["picture-not-found"][1]


def test_a_renamed_picture_folder_is_imported_again(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "p.jsonl", rows_with_pictures("cats/one.png"))
    picture(tmp_path / "pics" / "kats" / "one.png", "red")
    _, rejects = imported(tmp_path, table, pictures=tmp_path / "pics")
    assert rejects == {"picture-not-found": 1}
    (tmp_path / "pics" / "kats").rename(tmp_path / "pics" / "cats")
    corpus, rejects = imported(tmp_path, table, pictures=tmp_path / "pics")
    assert not rejects
    assert all(passage.picture for passage in corpus.passages())


def test_files_that_are_no_pictures_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "pics" / "a.JPE", "red")
    for name in ("b.heic", "c.svg", "d.SVG", ".DS_Store", "e.png"):
        (tmp_path / "pics" / name).write_text("x")
    _, rejects = imported(
        tmp_path, write_lines(tmp_path / "p.jsonl", rows_with_pictures("a.JPE")), pictures=tmp_path / "pics"
    )
    assert rejects == {"not-a-picture": 1}
    assert ImportSummary.read(tmp_path / "data" / "corpus").passed_over == "2 .svg (c.svg), 1 .heic (b.heic)"


def test_two_pictures_of_a_table_with_one_name_are_told(tmp_path: Path) -> None:
    data = [picture(tmp_path / f"{colour}.png", colour).read_bytes() for colour in ("red", "blue")]
    rows = [{"name": "a", "bytes": data[0]}, {"name": "a", "bytes": data[1]}, {"name": "b", "bytes": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    corpus, rejects = imported(
        tmp_path,
        write_lines(tmp_path / "p.jsonl", rows_with_pictures("a")),
        pictures=tmp_path / "pictures.parquet",
    )
    assert rejects == {"same-picture-name-twice": 1, "no-picture-bytes": 1}
    (passage,) = corpus.passages()
    assert corpus.images.load(passage.picture).getpixel((0, 0)) == (255, 0, 0)


def test_the_command_tells_what_was_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "p.jsonl", [{"id": "1", "text": "One."}, {"id": "1", "text": "Two."}, "x"])
    (tmp_path / "own.yaml").write_text(
        "name: own\ncorpus: {kind: files, passages: p.jsonl}\n"
        "stage_1: {ranks: 1, phases: [{name: m, steps: 1, mixture: [{source: question, "
        "batch_size: 4, grouped: 0}]}]}\n"
    )
    command = ["corpus", "import", "--config", str(tmp_path / "own.yaml"), "--workspace", str(tmp_path / "work")]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "1 x same-id-twice, first p.jsonl, line 2: the id '1' stands at p.jsonl, line 1" in shown
    assert "1 x not-json, first p.jsonl, line 3: not JSON" in shown
    assert run([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [reason["reason"] for reason in facts["reasons"]] == ["not-json", "same-id-twice"]


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Passages of the second import alone are larger than what it may take more than the first."""
    script = (
        "import json, resource, sys; from pathlib import Path; from gme_data.steps import PlannedStep, execute\n"
        "from flows.chains import IMPORT; from gme_synthesis.corpus.import_config import ImportConfig\n"
        "folder = Path(sys.argv[1])\n"
        "execute(PlannedStep(IMPORT, ImportConfig(passages=folder / 'p.jsonl').sealed(), {}), folder)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    peaks = []
    for rows in (1_000, 10_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        with (folder / "p.jsonl").open("w") as handle:
            for number in range(rows):
                handle.write(json.dumps({"id": str(number), "text": f"{number} " + "word " * 2000, "title": ""}) + "\n")
        peaks.append(
            float(subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True).stdout)
        )
    assert peaks[1] - peaks[0] < 60, peaks
