"""Public sets in their upstream schemas become one corpus: shares, contamination, refusals, and the registry itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from public_upstream import WRITERS, N, answer, picture, put_set, question

from flows.chains import PUBLIC
from flows.config import PublicPipeline, parse_pipeline
from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples
from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES
from gme_data.settings import parse_config
from gme_data.steps import PlannedStep, execute
from gme_data.tasks import list_tasks, load_task
from gme_synthesis.public.config import PublicConfig
from gme_synthesis.public.importing import REPORT
from gme_synthesis.public.registry import FACTS, public_sets
from gme_synthesis.public.store import read_lock, repository_folder
from gme_synthesis.public.unpack import unpack_pictures
from gme_synthesis.public.url_pictures import fetch_url_pictures

ALL = sorted({one.licence for one in public_sets().values()})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every set, as fetched."""
    folder = tmp_path_factory.mktemp("public")
    for name in WRITERS:
        put_set(folder / "data", folder / "hub", name)
    config = config_of(folder / "data", "m-beir")
    unpack_pictures(config.sets[0], config.data)
    answers = {f"https://example.org/{number}.png": picture(600 + number) for number in range(N - 1)}
    laion = config_of(folder / "data", {"name": "laion", "rows": N})
    fetch_url_pictures(laion.sets[0], laion.data, 0, lambda urls: [answers.get(url, "status-404") for url in urls])
    return folder / "data"


def config_of(data: Path, *sets: str | dict[str, Any], **fields: Any) -> PublicConfig:
    listed = [{"name": one} if isinstance(one, str) else one for one in sets]
    raw = {"sets": listed, "accept_licences": ALL, "data": data, "dev": 0, "test": 0, **fields}
    return parse_config(raw, PublicConfig, where="test")


def made(workspace: Path, config: PublicConfig) -> Path:
    return execute(PlannedStep(PUBLIC, config.sealed(), {}), workspace).folder


def test_every_fact_of_the_registry_names_its_source() -> None:
    for one in public_sets().values():
        stated = set(one.sources) - {"set"}
        assert stated <= set(FACTS), one.name
        assert "set" in one.sources, f"{one.name}: who trained on it?"
        assert set(one.unverified) == set(FACTS) - stated
        unknown = {fact for fact in ("bytes", "rows") if getattr(one, fact) is None}
        assert unknown <= set(one.unverified), f"{one.name}: a source for a number that isn't there"
        assert one.revision is None, "fetching pins it"
        assert set(one.task_types) <= set(TASK_TYPES)
        assert not any(file.path.endswith(".py") for file in one.files)
    assert set(public_sets()) == set(WRITERS), "each is read in its upstream schema, below"


def test_every_set_is_read_in_its_upstream_schema(data: Path, tmp_path: Path) -> None:
    names = [name for name in WRITERS if name not in ("laion", "mmeb-train")]
    config = config_of(data, *names, {"name": "laion", "rows": N}, {"name": "mmeb-train", "task_types": ["T->I"]})
    folder = made(tmp_path, config)
    examples = read_examples(folder / "train")
    by_set: dict[str, list[Example]] = {name: [one for one in examples if one.source == name] for name in WRITERS}
    counts = {name: len(found) for name, found in by_set.items()}
    texts = ("msmarco", "nq", "hotpotqa", "triviaqa", "squad", "fever", "allnli")
    assert {name: counts[name] for name in texts} == dict.fromkeys(texts, N)
    assert counts["imagenet"] == N - 4  # the first of each of four classes has nobody before it
    assert counts["docmatix"] == 2 * N * 2 // 3  # two questions a document; each third document has two pages
    assert counts["laion"] == counts["mscoco"] == N - 1  # a picture is missing
    assert counts["m-beir"] == N
    assert counts["mmeb-train"] == N - 1  # of its two tasks one is MSCOCO's own
    assert {one.task_type for one in by_set["docmatix"]} == {"T->VD"}
    assert {one.task_type for one in by_set["imagenet"]} == {"I->I"}
    assert {one.task_type for one in by_set["mscoco"]} == {"T->I"}, "what MMEB says to documents is no content"
    assert Counter(one.task_type for one in by_set["m-beir"]) == {"IT->T": N // 2, "T->I": N // 2}

    marco = next(one for one in by_set["msmarco"] if one.query.text == question("msmarco", 3))
    assert (marco.positive.text, marco.instruction) == (answer("msmarco", 3), public_sets()["msmarco"].instruction)
    assert [item.text for item in marco.negatives] == ["msmarco: nothing of 3"]
    assert next(one for one in by_set["squad"] if one.query.text == question("squad", 5)).entity_group == "Title 2"
    assert {one.instruction for one in by_set["m-beir"]} == {"Name it.", "Say what it is.", "Show it.", "Find it."}
    assert {one.instruction for one in by_set["mscoco"]} == {"You are a helpful assistant."}
    assert by_set["fever"][0].positive.text == f"tide {answer('fever', 0)}"
    assert {one.licence for one in by_set["docmatix"]} == {"mit"}

    store = ImageStore([folder / "images"])
    shown = {item.image for one in examples for item in (one.query, one.positive) if item.image}
    assert all(id_ in store for id_ in shown)
    assert len(store) == len(shown)
    report = json.loads((folder / REPORT).read_text())
    refused = {one["name"]: one["refused"] for one in report["sets"] if one["refused"]}
    assert refused == {
        "fever": {"empty-positive": 1},
        "docmatix": {"several-pages": N // 3},
        "laion": {"picture-not-found": 1},
        "mscoco": {"picture-not-found": 1},
        "mmeb-train": {"picture-not-found": 2, "same-example-in-another-set": N - 1},
    }
    assert report["benchmarks"]["tasks"] == []
    reasons = Counter(row["reason"] for row in pq.read_table(folder / "rejects").to_pylist())
    assert reasons["several-pages"] == N // 3


def test_rows_files_and_shares_bound_what_is_taken(data: Path, tmp_path: Path) -> None:
    shares = {"text": 1, "image": 1, "cross": 2, "fused": 2}
    sets = [{"name": "msmarco", "share": 3}, "nq", {"name": "imagenet", "files": 1}, "docmatix"]
    sets.append({"name": "m-beir", "kind": "fused", "rows": 4})
    config = config_of(data, *sets, shares=shares)
    folder = made(tmp_path / "a", config)
    report = json.loads((folder / REPORT).read_text())
    there = {one["name"]: one["examples"] for one in report["sets"]}
    assert there == {"msmarco": N, "nq": N, "imagenet": 2, "docmatix": 16, "m-beir": 4}
    assert report["kinds"] == {"text": 2, "image": 2, "cross": 4, "fused": 4}
    assert {one["name"]: one["taken"] for one in report["sets"]}["msmarco"] == 2  # its part of two is 1.5
    again = made(tmp_path / "b", config)
    assert read_examples(again / "train") == read_examples(folder / "train")
    other = made(tmp_path / "c", config.model_copy(update={"seed": 1}))
    assert read_examples(other / "train") != read_examples(folder / "train")

    lacking = config_of(data, "nq", shares={"text": 1, "image": 1})
    with pytest.raises(FoundryError, match="no set has examples of the kind image"):
        made(tmp_path / "d", lacking)


def test_what_a_benchmark_holds_is_not_trained_on(data: Path, tmp_path: Path) -> None:
    """A repository as `gme umrb fetch` leaves it: a query, an answer and a picture of it are among the public sets."""
    task = tmp_path / "umrb" / "mteb--colours"
    rows = {
        "corpus/test-00000-of-00001.parquet": [
            {"id": "d0", "text": answer("nq", 1), "image": None},
            {"id": "d1", "text": answer("nq", 2), "image": None},
            {"id": "d2", "text": None, "image": {"bytes": picture(106), "path": None}},
        ],
        "query/test-00000-of-00001.parquet": [
            {"id": "q0", "text": question("nq", 0), "image": None},
            {"id": "q1", "text": question("nq", 5), "image": None},
        ],
        # BEIR has its training questions in the same table: they judge nobody.
        "qrels/train-00000-of-00001.parquet": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
        "qrels/test-00000-of-00001.parquet": [
            {"query-id": "q0", "corpus-id": "d0", "score": 1},
            {"query-id": "q0", "corpus-id": "d1", "score": 0},
            {"query-id": "q0", "corpus-id": "d2", "score": 1},
        ],
    }
    for name, table in rows.items():
        (task / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(table), task / name)

    def refused(compared: str) -> dict[str, dict[str, int]]:
        fields = {"benchmarks": tmp_path / "umrb", "compared": compared, "ngram": 9}
        folder = made(tmp_path / compared, config_of(data, "nq", "imagenet", **fields))
        report = json.loads((folder / REPORT).read_text())
        assert report["benchmarks"] == {"compared": compared, "tasks": ["mteb--colours"]}
        return {one["name"]: one["refused"] for one in report["sets"]}

    query = {"query-of-a-benchmark": 1}
    assert refused("queries") == {"nq": query, "imagenet": {}}
    pictured = {"picture-of-a-benchmark": 2}  # once as query, once as positive
    assert refused("answers") == {"nq": {**query, "9-words-of-a-benchmark": 1}, "imagenet": pictured}
    assert refused("pools") == {"nq": {**query, "9-words-of-a-benchmark": 2}, "imagenet": pictured}


def test_tasks_are_held_out_by_entity_and_across_sets(data: Path, tmp_path: Path) -> None:
    folder = made(tmp_path, config_of(data, "squad", "triviaqa", "docmatix", test=0.4, seed=3))
    examples = read_examples(folder / "train")
    tasks = [load_task(path) for path in list_tasks(folder / "tasks" / "test")]
    assert {task.card.name for task in tasks} >= {"squad-t2t", "docmatix-t2vd"}
    for task in tasks:
        held_out = {query.entity_group for query in task.queries}
        assert held_out
        assert not held_out & {one.entity_group for one in examples}


def test_a_killed_import_goes_on_with_the_sets_that_are_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gme_synthesis.public import importing

    done: list[str] = []
    real = importing.import_rows

    def dying(config: Any, rows: Any, folder: Path) -> Any:
        if config.source == "squad" and "squad" not in done:
            done.append("squad")
            raise KeyboardInterrupt
        done.append(config.source)
        return real(config, rows, folder)

    monkeypatch.setattr(importing, "import_rows", dying)
    config = config_of(data, "nq", "squad", "allnli")
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, config)
    assert len(read_examples(made(tmp_path, config) / "train")) == 3 * N
    assert done == ["nq", "squad", "squad", "allnli"]


def test_bad_settings_are_told_by_field_before_any_work(data: Path, tmp_path: Path) -> None:
    for fields, message in (
        ({"sets": [{"name": "msmacro"}]}, "No public set 'msmacro'. Did you mean 'msmarco'"),
        ({"sets": [{"name": "nq"}, {"name": "nq"}]}, "the set 'nq' stands twice"),
        ({"sets": [{"name": "laion"}]}, "`rows` must say how many"),
        ({"shares": {"text": 0}}, "expected parts above 0"),
        ({"shares": {"texts": 1}}, "shares.texts"),
        ({"sets": []}, "sets"),
    ):
        with pytest.raises(FoundryError) as refused:
            parse_config({"sets": [{"name": "nq"}], **fields}, PublicConfig, where="x.yaml")
        assert message in str(refused.value)
        assert refused.value.exit_code == 2
    with pytest.raises(FoundryError, match=r"not accepted: nq \(cc-by-sa-3.0\), squad \(cc-by-sa-4.0\)") as refused:
        made(tmp_path, config_of(data, "nq", "squad", "docmatix", accept_licences=["mit"]))
    assert "accept_licences: [mit, cc-by-sa-3.0, cc-by-sa-4.0]" in (refused.value.hint or "")
    with pytest.raises(FoundryError, match=r"2 of 2 public sets are not fetched: nq: .* never fetched") as refused:
        made(tmp_path, config_of(tmp_path / "none", "nq", "squad"))
    assert "gme data fetch nq squad" in (refused.value.hint or "")
    rows = {"name": "laion", "rows": 5}
    with pytest.raises(FoundryError, match="laion: the pictures of 5 rows drawn by seed 0 were never fetched"):
        made(tmp_path, config_of(data, rows))


def test_the_key_follows_the_fetched_files(data: Path, tmp_path: Path) -> None:
    config = config_of(data, "nq")
    assert config.sealed().digest == config.sealed().digest
    assert config.sealed().digest != config_of(data, "squad").sealed().digest
    assert config.sealed().digest != config_of(tmp_path, "nq").sealed().digest
    pinned = read_lock(data)["sentence-transformers/natural-questions"]
    path = repository_folder(data, "sentence-transformers/natural-questions") / pinned.files[0].path
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    try:
        with pytest.raises(FoundryError, match=r"nq: .* has [\d,]+ bytes, [\d,]+ were fetched"):
            made(tmp_path, config)
    finally:
        path.write_bytes(before)


def test_the_corpus_of_the_page_is_made(data: Path, tmp_path: Path) -> None:
    """The block of docs/own-corpus.md, with the folders of this test."""
    page = (Path(__file__).parents[3] / "docs" / "own-corpus.md").read_text(encoding="utf-8")
    shown = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    (raw,) = [block for block in shown if block.get("corpus", {}).get("kind") == "public"]
    config = parse_pipeline(raw, where="docs/own-corpus.md")
    assert isinstance(config, PublicPipeline)
    here = {"data": data, "benchmarks": None, "examples": None, "dev": 0, "test": 0}
    folder = made(tmp_path, config.corpus.model_copy(update=here))
    named = {(one.source, one.task_type) for one in config.stage_1.phases[0].mixture}
    counts = Counter((one.source, one.task_type) for one in read_examples(folder / "train"))
    assert {(source, kind) for source, kind in named if kind} <= set(counts)
    # A quarter each of text and fused, for the scarcest kind, M-BEIR's six questions about pictures, decides.
    assert counts == {("squad", "T->T"): 6, ("docmatix", "T->VD"): 12, ("m-beir", "IT->T"): 6}
