"""The index on disk: what it says of small sets, and that eight million examples are as easily opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogs import Everything, catalog_of

from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA, write_examples
from gme_data.items import Item
from gme_training.data.example_index import INDEX_FILE, EXAMPLES_FILE, VERSION, ensure_index, write_lookups
from gme_training.data.shuffle import permuted, permutation


@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_an_order_has_every_number_once(length: int, seed: int):
    order = permuted(np.arange(length), length, [seed, 3])
    assert sorted(order.tolist()) == list(range(length))
    assert list(permutation(length, [seed, 3])) == order.tolist()


def test_orders_look_random():
    """Means of neighbours, of places, and of two seeds: no pattern that a batch could catch."""
    length = 10_007
    one, other = (permuted(np.arange(length), length, [seed]) for seed in (1, 2))
    assert abs(np.corrcoef(one, np.arange(length))[0, 1]) < 0.04
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.04
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.04
    assert (one == other).mean() < 0.002
    # Of 100 draws of 100 places, how many fall into the first tenth: binomial.
    tenths = (one[:10_000].reshape(100, 100) < length / 10).sum(1)
    assert 8 < tenths.mean() < 12
    assert 2 < tenths.std() < 4


def test_examples_and_items_come_back_as_they_were(examples):
    plain = Item(text="A text that is no picture")
    first = replace(examples[0], negatives=(examples[1].positive, plain, plain))
    expected_examples = [first, *examples[1:], replace(examples[0], id="again")]
    catalog = catalog_of(expected_examples)
    assert list(catalog.examples) == expected_examples
    assert catalog.examples[3] == expected_examples[3]
    assert catalog.examples.instruction(2) == expected_examples[2].instruction
    for row, example in enumerate(expected_examples):
        assert catalog.items[int(catalog.query[row])] == example.query
        assert catalog.items[int(catalog.positive[row])] == example.positive
        assert [catalog.items[one] for one in catalog.negatives(row).tolist()] == list(example.negatives)
    assert len(set(catalog.items)) == len(catalog.items)
    assert catalog.query[0] == catalog.query[len(expected_examples) - 1]


def test_a_text_is_another_item_with_a_picture_and_empty_is_not_nothing(examples):
    picture = next(one.query.image for one in examples if one.query.image)
    items = [Item("a", picture), Item("a"), Item(None, picture), Item("", picture)]
    catalog = catalog_of([replace(examples[0], id=str(n), query=item) for n, item in enumerate(items)])
    assert len(set(catalog.query.tolist())) == 4


def test_rows_are_chosen_by_source_type_and_negatives(examples):
    changed = [
        replace(
            one, negatives=(one.positive,) if number % 3 else (), task_type="T->IT" if number % 2 else one.task_type
        )
        for number, one in enumerate(examples)
    ]
    catalog = catalog_of(changed)
    for source, kind, only_hard in (("question", None, False), ("question", "T->IT", True), ("shape", None, True)):
        expected = [
            row
            for row, one in enumerate(changed)
            if one.source == source and kind in (None, one.task_type) and (one.negatives or not only_hard)
        ]
        rows = catalog.rows(source, kind, only_with_negatives=only_hard)
        assert rows.all().tolist() == expected
        assert rows.intersection(np.arange(len(changed))).tolist() == expected
    assert len(catalog.rows("nothing")) == 0
    key = Counter((one.source, one.batch_key) for one in changed).most_common(1)[0][0]
    same = [row for row, one in enumerate(changed) if (one.source, one.batch_key) == key]
    assert catalog.rows_with_key(int(catalog.key[same[0]])).tolist() == same


def test_an_index_is_built_again_when_the_shards_changed(examples, tmp_path: Path):
    shards, folder = tmp_path / "train", tmp_path / "index"
    write_examples(shards, examples)
    ensure_index([shards], folder, Everything())
    before = (folder / EXAMPLES_FILE).stat().st_mtime_ns
    ensure_index([shards], folder, Everything())
    assert (folder / EXAMPLES_FILE).stat().st_mtime_ns == before
    (folder / INDEX_FILE).unlink()  # killed while it was built
    ensure_index([shards], folder, Everything())
    assert json.loads((folder / INDEX_FILE).read_text())["strata"]
    write_examples(shards, examples[:5])
    ensure_index([shards], folder, Everything())
    assert np.load(folder / "query.npy").shape == (5,)


def test_bad_examples_are_named(examples, tmp_path: Path):
    write_examples(tmp_path / "train", examples)
    pictured = next(one for one in examples if one.query.image)
    with pytest.raises(FoundryError, match=rf"Example '{pictured.id}' of source '{pictured.source}' has a picture"):
        ensure_index([tmp_path / "train"], tmp_path / "index", set())
    with pytest.raises(FoundryError, match="No examples shards"):
        ensure_index([tmp_path / "nothing"], tmp_path / "index", set())
    shard = next((tmp_path / "train").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(FoundryError, match="Corrupt parquet file"):
        ensure_index([tmp_path / "train"], tmp_path / "index", set())
    assert not (tmp_path / "index" / INDEX_FILE).exists()


OPEN = """
import sys, time, json, resource
from pathlib import Path
began = time.perf_counter()
from gme_training.data.batches import BatchSampler
from gme_training.data.catalog import Catalog
from gme_training.config import PhaseConfig, SourceShare
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
before = anonymous()
began = time.perf_counter()
catalog = Catalog(Path(sys.argv[1]))
shares = [SourceShare(source="pairs", batch_size=256), SourceShare(source="more", batch_size=128, grouped=0)]
phase = PhaseConfig(name="p", steps=100_000, mixture=shares)
plan = BatchSampler(catalog, phase, number=0, seed=1)
batch = plan.batch(0)
start = time.perf_counter() - began
texts = set()
for step in (*range(20), *range(90_000, 90_020)):
    batch = plan.batch(step)
    texts |= {catalog.items[item].text for item in batch.candidates.tolist()}
print(json.dumps({"start": start, "mib": anonymous() - before, "texts": len(texts),
                  "a batch": (time.perf_counter() - began - start) / 40}))
"""


def synthetic(folder: Path, count: int) -> None:
    """An index of `count` examples of two sources; keys of 64, every tenth query asked twice."""
    folder.mkdir()
    rows = np.arange(count)
    query, positive = 2 * rows - (rows % 10 == 1), 2 * rows + 1
    query[rows % 10 == 1] -= 1  # the query before
    _, query = np.unique(query, return_inverse=True)
    numbers = np.stack([2 * rows, positive], axis=1)
    numbers[rows % 10 == 1, 0] -= 2
    _, items = np.unique(numbers, return_inverse=True)
    strata = write_lookups(
        folder, 2 * np.arange(count + 1), items.reshape(-1).astype(np.int64), rows // 4, rows // 64, (rows % 5 == 0) * 1
    )
    names = [{"source": name, "task_type": "T->T", "with_negatives": False} for name in ("pairs", "more")]
    facts = {
        "version": VERSION,
        "shards": [],
        "strata": [{**names[number], "first": a, "last": b} for number, a, b in strata],
    }
    with pa.OSFile(str(folder / EXAMPLES_FILE), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for start in range(0, count, 65_536):
            some = rows[start : start + 65_536]
            texts = [pa.array([f"{word} {row}" for row in some.tolist()]) for word in ("question", "answer")]
            nothing, kind = pa.nulls(len(some), pa.string()), SCHEMA.field("negatives").type
            none = pa.array(np.zeros(len(some) + 1, np.int32))
            item = SCHEMA.field("query").type
            pairs = [pa.StructArray.from_arrays([text, nothing], fields=list(item)) for text in texts]
            same = {name: pa.array([name]).take(pa.array(np.zeros(len(some), np.int64))) for name in SCHEMA.names}
            columns = {
                **same, "query": pairs[0], "positive": pairs[1], "instruction": nothing, "answer": nothing,
                "negatives": pa.ListArray.from_arrays(none, pairs[0].slice(0, 0), type=kind),
            }  # fmt: skip
            writer.write_batch(pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    (folder / INDEX_FILE).write_text(json.dumps(facts))


@pytest.mark.slow
def test_eight_million_examples_open_at_once_and_take_no_more_memory(tmp_path: Path):
    measured = {}
    for count in (80_000, 8_000_000):
        synthetic(tmp_path / str(count), count)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(tmp_path / str(count))],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        measured[count] = json.loads(done.stdout)
        assert measured[count]["texts"] > 3000
    small, large = measured.values()
    assert large["start"] < 30
    assert large["mib"] < small["mib"] + 16, measured
    assert large["a batch"] < 0.5
