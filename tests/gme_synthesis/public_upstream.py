"""A handful of rows of every public set, in the schema and under the file names in which it lies on the hub."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from support.hub import COMMIT

from gme_synthesis.public.registry import public_sets
from gme_synthesis.public.store import HubFile, PinnedRepository, repository_folder, write_lock

N = 12
TOPICS = ["tide", "comet", "harp", "lichen", "ferry", "opal", "kelp", "quartz", "sparrow", "anvil", "mango", "fjord"]


def picture(seed: int) -> bytes:
    """A PNG of coarse noise, unlike that of any other seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()


def question(name: str, number: int) -> str:
    return f"{name}: what is told about the {TOPICS[number % N]} of number {number}"


def answer(name: str, number: int) -> str:
    return f"{name}: about the {TOPICS[number]}, number {number}, somebody wrote this passage down."


def write_subset(hub: Path, name: str) -> None:
    """Write the repositories of a set below ``hub``."""
    root = hub / public_sets()[name].repository
    WRITERS[name](name, root)


def put_set(data: Path, hub: Path, name: str) -> None:
    """Write a set as `gme data fetch` leaves it, lock file included, without a hub."""
    from gme_data.digests import sha256_file
    from gme_synthesis.public.store import matches, read_lock

    write_subset(hub, name)
    upstream = public_sets()[name]
    lock = read_lock(data)
    for repository in upstream.repositories:
        files = {file.path: file for file in lock[repository].files} if repository in lock else {}
        for path in sorted((hub / repository).rglob("*")):
            relative = path.relative_to(hub / repository).as_posix()
            if path.is_file() and any(matches(file, relative) for file in upstream.patterns(repository)):
                target = repository_folder(data, repository) / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                digest = sha256_file(path)
                files[relative] = HubFile(relative, path.stat().st_size, digest, digest)
        lock[repository] = PinnedRepository(COMMIT, tuple(files.values()))
    write_lock(data, lock)


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _msmarco(name: str, root: Path) -> None:
    rows = [
        {
            "query_id": str(number),
            "query": question(name, number),
            "positive_passages": [{"docid": f"p{number}", "title": "", "text": answer(name, number)}],
            "negative_passages": [{"docid": f"n{number}", "title": "", "text": f"{name}: nothing of {number}"}],
        }
        for number in range(N)
    ]
    _lines(root / "train.jsonl.gz", rows)
    # What `datasets` would run, and nobody here may fetch.
    (root / "msmarco-passage.py").write_text("raise SystemExit('a loading script ran')\n")


def _columns(**columns: str) -> Any:
    def write(name: str, root: Path) -> None:
        made = {"q": question, "a": answer, "n": lambda name, number: f"{name}: nothing of {number}"}
        made |= {"t": lambda _name, number: f"Title {number // 2}", "i": lambda _name, number: str(number)}
        rows = [{column: made[kind](name, number) for column, kind in columns.items()} for number in range(N)]
        path = public_sets()[name].files[0].path.replace("*", "00000-of-00001")
        _parquet(root / path, rows)

    return write


def _fever(name: str, root: Path) -> None:
    qrels = root.parent / "fever-qrels" / "train.tsv"
    qrels.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{number}\tDoc_{number}\t1" for number in range(N)] + ["0\tDoc_lost\t1"]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))
    claims = ({"_id": str(number), "text": question(name, number), "metadata": {}} for number in range(N + 3))
    _lines(root / "queries.jsonl.gz", claims)
    docs = ({"_id": f"Doc_{n}", "title": TOPICS[n], "text": answer(name, n), "metadata": {}} for n in range(N))
    _lines(root / "corpus.jsonl.gz", docs)


def _imagenet(_name: str, root: Path) -> None:
    rows = [
        {"image": {"bytes": picture(100 + number), "path": f"n0{number}.JPEG"}, "label": number % 4}
        for number in range(N)
    ]
    _parquet(root / "data" / "train-00000-of-00002.parquet", rows[: N // 2])
    _parquet(root / "data" / "train-00001-of-00002.parquet", rows[N // 2 :])


def _docmatix(name: str, root: Path) -> None:
    rows = [
        {
            "images": [
                {"bytes": picture(200 + number * 10 + page), "path": None} for page in range(1 + number % 3 // 2)
            ],
            "texts": [
                {"user": question(f"{name} {which}", number), "assistant": "Yes.", "source": "PDFA key: 1"}
                for which in ("first", "second")
            ],
        }
        for number in range(N)
    ]
    _parquet(root / "data" / "train-00000-of-01106-87614b2bafc4196c.parquet", rows)


def _laion(_name: str, root: Path) -> None:
    rows = [
        {"url": f"https://example.org/{number}.png", "caption": f"a {TOPICS[number]} on a table", "similarity": 0.3}
        for number in range(N)
    ]
    _parquet(root / "part-00000-339dc23d-0869-4dc0-9390-b4036fcc80c2-c000.snappy.parquet", rows)


def _mmeb(task: str, first: int) -> Any:
    def write(_name: str, root: Path) -> None:
        rows = [
            {
                "qry": f"Find me an everyday image that matches the given caption.\na {TOPICS[number]}, {task}",
                "qry_image_path": "",
                "pos_text": "<|image_1|>\nRepresent the given image.",
                "pos_image_path": f"images/{task}/Train/{number}.png",
                "neg_text": "",
                "neg_image_path": "",
            }
            for number in range(N)
        ]
        _parquet(root / task / "original-00000-of-00001.parquet", rows)
        archive = root / "images_zip" / f"{task}.zip"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive, "w") as members:
            for number in range(N - 1):  # one is missing, as it happens
                members.writestr(zipfile.ZipInfo(f"{task}/Train/{number}.png"), picture(first + number))

    return write


def _mmeb_train(name: str, root: Path) -> None:
    _mmeb("MSCOCO_t2i", 300)(name, root)
    _mmeb("VisualNews_t2i", 400)(name, root)


def _m_beir(_name: str, root: Path) -> None:
    rows, pool = [], []
    for number in range(N):
        fused = number % 2 == 0  # pictures with a question ask for a text, or texts for a picture
        rows.append(
            {
                "qid": f"{3 if fused else 9}:{number}",
                "query_txt": f"Which {TOPICS[number]} is it?",
                "query_img_path": f"mbeir_images/oven/{number}.png" if fused else None,
                "query_modality": "image,text" if fused else "text",
                "query_src_content": None,
                "pos_cand_list": [f"1:{number}"],
                "neg_cand_list": [],
            }
        )
        document = {"did": f"1:{number}", "src_content": None}
        shown = {"txt": None, "img_path": f"mbeir_images/coco/{number}.png", "modality": "image"}
        told = {"txt": f"It is the {TOPICS[number]} of the harbour.", "img_path": None, "modality": "text"}
        pool.append({**document, **(told if fused else shown)})
    _lines(root / "query/union_train/mbeir_union_up_train.jsonl", rows)
    _lines(root / "cand_pool/global/mbeir_union_train_cand_pool.jsonl", pool)
    table = root / "instructions" / "query_instructions.tsv"
    table.parent.mkdir(parents=True)
    header = "query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"
    rows_of_table = [
        "image,text\ttext\tOVEN\t3\tName it.\tSay what it is.",
        "text\timage\tMSCOCO\t9\tShow it.\tFind it.",
    ]
    table.write_text("\n".join([header, *rows_of_table, ""]))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(N):
            _add(archive, f"mbeir_images/{'oven' if number % 2 == 0 else 'coco'}/{number}.png", picture(500 + number))
        _add(archive, "mbeir_images/readme.sh", b"echo never unpacked")
    packed = buffer.getvalue()
    for part, start in enumerate(range(0, len(packed), 700)):
        (root / f"mbeir_images.tar.gz.part-{part:02d}").write_bytes(packed[start : start + 700])


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


WRITERS = {
    "msmarco": _msmarco,
    "nq": _columns(query="q", answer="a"),
    "hotpotqa": _columns(anchor="q", positive="a", negative="n"),
    "triviaqa": _columns(query="q", answer="a"),
    "squad": _columns(id="i", title="t", context="a", question="q"),
    "fever": _fever,
    "allnli": _columns(anchor="q", positive="a", negative="n"),
    "imagenet": _imagenet,
    "laion": _laion,
    "mscoco": _mmeb("MSCOCO_t2i", 300),
    "docmatix": _docmatix,
    "m-beir": _m_beir,
    "mmeb-train": _mmeb_train,
}
