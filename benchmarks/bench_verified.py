"""What it costs to load verified files alone, and to read strictly: ``python benchmarks/bench_verified.py [FOLDER]``.

FOLDER is the workspace of a finished run; by default this one, after `make pipeline`.

* ``run``: all inputs of all steps compared with their manifests, once for each step that takes them, since each runs in
  a process of its own; as a part of the seconds that the manifests say the steps took.
* ``rerun``: all outputs compared once, beside the least that can be done: their manifests read, their files looked at.
* ``reader``: every JSON file and line of the outputs by the strict reader, beside `json.loads`.

CPU seconds, the least of five rounds in which both sides take turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from timing import interleaved_minimum

from flows.chains import pipeline_chain
from flows.config import load_pipeline
from gme_data import file_digests, manifest
from gme_data.manifest import NAME, require
from gme_data.structured import load_json
from gme_embedder.model_files.file_names import NO_LIMIT

ROUNDS = 5


def main() -> None:
    workspace = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    chain = pipeline_chain(load_pipeline(Path("configs/tiny.yaml")))
    folders = {step.name: workspace / step.output for step in chain}
    taken = [folders[made_by] for step in chain for made_by in step.inputs.values()]
    steps = sum(require(folder, "gme pipeline").seconds for folder in folders.values())
    run, outputs, looked_at = interleaved_minimum(
        [lambda: verify(taken), lambda: verify(folders.values()), lambda: look_at(folders.values())], ROUNDS
    )
    texts = [text for folder in folders.values() for text in structured(folder)]
    strict, plain = interleaved_minimum(
        [lambda: [strictly(text) for text in texts], lambda: [*map(json.loads, texts)]], ROUNDS
    )
    size = sum(entry.bytes for folder in folders.values() for entry in require(folder, "gme pipeline").files)
    sys.stdout.write(
        f"{size / 2**20:.0f} MiB in {len(folders)} outputs; their steps took {steps:.0f} s\n"
        f"run     {run:6.2f} s to compare the inputs of every step, {run / steps:.2%} of the steps\n"
        f"rerun   {outputs:6.2f} s to compare every output; {looked_at:.2f} s without their contents\n"
        f"reader  {strict:6.2f} s for {sum(map(len, texts)) / 2**20:.1f} MiB of JSON; json.loads {plain:.2f} s\n"
    )


def verify(folders: Iterable[Path]) -> None:
    """As a process does that has just begun."""
    file_digests._DIGESTS.clear()
    manifest._PARSED.clear()
    for folder in folders:
        require(folder, "gme pipeline")


def strictly(text: bytes) -> object:
    return load_json(text, where="a file", max_integer=NO_LIMIT)


def look_at(folders: Iterable[Path]) -> None:
    for folder in folders:
        for entry in json.loads((folder / NAME).read_bytes())["files"]:
            assert (folder / entry["path"]).stat().st_size == entry["bytes"]


def structured(folder: Path) -> list[bytes]:
    """The JSON files and lines of an output."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_bytes().splitlines() if line.strip()]
    return [*(path.read_bytes() for path in folder.rglob("*.json")), *lines]


if __name__ == "__main__":
    main()
