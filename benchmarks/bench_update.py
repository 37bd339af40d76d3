"""A changed corpus: what updating its vectors costs, ``python benchmarks/bench_update.py --passages 100000``.

Passages of some 40 words are embedded by `embed_corpus` with a model of the size of the default pipeline's: the smaller
the model, the more weighs what an update does beside encoding (`--layers 1` has the least there is). Then a share of
them, 1 % if not told otherwise, is changed: half get another text, a quarter is gone and as many are new, at places all
over the corpus. `update_corpus` brings the folder to that. Both times are from the tables to the published folder,
digests and ids included, without the loading of the model. CPU seconds of one thread, since an update is run once; wall
seconds beside them.

Checked before the ratio is printed: the ids are those of the corpus in its order, what stayed has its old vector bit
for bit, and what changed has the vector that `Embedder.encode` gives it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from gme_data.environment import set_default_env
from gme_embedder.config import ModelConfig
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, identify_model
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.update import update_corpus
from gme_embedder.corpus.vector_folder import open_index
from gme_embedder.embedder import Embedder

WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
TOLERANCE = 1e-5
Result = TypeVar("Result")


def main() -> None:
    """Print both times and their ratio."""
    set_default_env()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.01, help="of the passages that change")
    parser.add_argument("--layers", type=int, default=ModelConfig().text_layers, help="of the language part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        compare(Path(home), options.passages, max(4, round(options.share * options.passages)), options.layers)


def compare(home: Path, passages: int, changes: int, layers: int) -> None:
    """Embed, change, update, check, print."""
    Embedder.fresh(ModelConfig(text_layers=layers), seed=1).save(home / "model")
    embedder = Embedder.load(home / "model")
    embedder.encode(["warm"])
    draw = random.Random(0)  # noqa: S311 - texts, no secrets
    rows = {f"p{number}": text(draw) for number in range(passages)}
    write(home, rows)
    whole = timed(lambda: embed(embedder, home))
    before = vectors(home)
    changed = change(rows, changes, draw)
    write(home, changed)
    seconds = timed(lambda: update(embedder, home))
    check(embedder, rows, changed, before, vectors(home))
    print(f"{passages} passages, {changes} of them changed, new or gone; {layers} layer(s), {embedder.dimension} wide")
    for name, (cpu, wall) in {"embedded whole": whole, "updated": seconds}.items():
        print(f"  {name:<15} {cpu:8.2f} CPU s  {wall:8.2f} s   {100 * cpu / whole[0]:6.2f} % of the CPU of the whole")


def text(draw: random.Random) -> str:
    """A passage that no other is like."""
    return f"{draw.getrandbits(64):x} " + " ".join(draw.choices(WORDS, k=draw.randint(20, 60)))


def change(rows: dict[str, str], changes: int, draw: random.Random) -> dict[str, str]:
    """The corpus as it is later: texts written anew, rows gone, and new ones in their places."""
    touched = draw.sample(sorted(rows), changes - changes // 4)
    replaced = set(touched[: changes // 4])
    anew = set(touched) - replaced
    later = {}
    for id_, said in rows.items():
        later[f"new-{id_}" if id_ in replaced else id_] = text(draw) if id_ in replaced or id_ in anew else said
    return later


def write(home: Path, rows: dict[str, str]) -> None:
    """The table of the corpus."""
    pq.write_table(pa.table({"id": list(rows), "text": list(rows.values())}), home / "corpus.parquet")


def embed(embedder: Embedder, home: Path) -> None:
    """As `gme embed`, from the table on."""
    table = open_corpus(home / "corpus.parquet")
    embed_corpus(embedder, table, home / "vectors", job_of(embedder, home))


def update(embedder: Embedder, home: Path) -> None:
    """As `gme embed --update`, from the table on."""
    table = open_corpus(home / "corpus.parquet")
    _, changes = update_corpus(embedder, table, home / "vectors", job_of(embedder, home))
    sys.stderr.write(f"{changes}\n")


def job_of(embedder: Embedder, home: Path) -> EmbedJob:
    """What makes the vectors."""
    corpus = identify_corpus(open_corpus(home / "corpus.parquet"))
    return EmbedJob(corpus=corpus, model=identify_model(embedder, "model"))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def vectors(home: Path) -> dict[str, NDArray[np.float32]]:
    """By id, in order."""
    shards = open_index(home / "vectors").shards
    return {id_: vector for shard in shards for id_, vector in zip(shard.ids, np.array(shard.vectors), strict=True)}


def check(
    embedder: Embedder,
    rows: dict[str, str],
    changed: dict[str, str],
    before: dict[str, NDArray[np.float32]],
    after: dict[str, NDArray[np.float32]],
) -> None:
    """See the module."""
    assert list(after) == list(changed)
    same = [id_ for id_, said in changed.items() if rows.get(id_) == said]
    assert all(after[id_].tobytes() == before[id_].tobytes() for id_ in same)
    other = [id_ for id_, said in changed.items() if rows.get(id_) != said]
    assert len(same) + len(other) == len(changed)
    assert other
    expected = embedder.encode([changed[id_] for id_ in other])
    assert np.abs(np.stack([after[id_] for id_ in other]) - expected).max() < TOLERANCE


if __name__ == "__main__":
    main()
