"""`gme search`: search the documents of a pipeline's test task, by its instruction, with a registered model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gme_cli.hit import Hit
from gme_cli.options import Common, print_json, registered_model, say, say_plan
from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import MAX_BYTES, Images, ImageStore, decode_rgb
from gme_data.items import modalities_of
from gme_data.parquet import read_rows, read_shards
from gme_data.structured import read_regular
from gme_data.tasks import Document, RetrievalTask, image_folders, list_tasks, load_card, load_task

if TYPE_CHECKING:
    import numpy as np

    from gme_embedder.embedder import Embedder

_COMMON = Common()
_ATLAS_TASKS = {
    ("flags", "T"): "flag-description-t2i",
    ("flags", "I"): "flag-i2i",
    ("flags", "IT"): "flag-i2i",
    ("pictographs", "T"): "pictograph-name-t2i",
    ("pictographs", "I"): "pictograph-i2i",
    ("pictographs", "IT"): "pictograph-edit-it2i",
    ("passages", "T"): "place-question-t2t",
    ("passages", "I"): "flag-question-seen-it2t",
    ("passages", "IT"): "flag-question-seen-it2t",
    ("pages", "T"): "page-question-seen-t2vd",
    ("pages", "I"): "page-question-seen-t2vd",
    ("pages", "IT"): "page-question-seen-t2vd",
}
"""(pool, modality of the query) -> the task of Atlas with such queries."""


def search(
    text: str | None = None,
    /,
    *,
    image: Path | None = None,
    pool: Annotated[str | None, Parameter(name="--in")] = None,
    top: int = 10,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("reports/search.html"),
    alias: str = "champion",
    common: Common = _COMMON,
) -> None:
    """Search what the pipeline's test tasks search, with a registered model; print the hits and write a small page.

    Parameters
    ----------
    text
        What to look for. With --image: a question about the picture.
    image
        A picture to search with.
    pool
        Where to search: flags, pictographs, passages or pages of Atlas, or the name of a test task, such as name-t2i;
        by default flags, or the first task that takes such a query.
    top
        Number of hits.
    out
        File of the page.
    alias
        The registered model: champion, or champion@PIPELINE for that of another pipeline.
    """
    from flows.chain import published_outcome
    from flows.chains import pipeline_chain
    from gme_cli.search_page import write_page
    from gme_embedder.embedder import Embedder

    if text is None and image is None:
        raise FoundryError("Nothing to search for.", hint='gme search "a flag with a red disc" --in flags')
    if top < 1:
        raise FoundryError(f"--top {top}: expected 1 or more.")
    picture = _read_picture(image) if image else None
    config = common.pipeline()
    model = registered_model(alias, common)
    chain = pipeline_chain(config)
    folder = published_outcome(chain[chain.last("evaluation").inputs["corpus"]], common.workspace).folder
    task, images = _load_pool(folder / "tasks" / "test", pool, text, image)
    if common.dry_run:
        what = f"the {len(task.corpus)} documents of {task.card.name} with {model.label}"
        say_plan(f"Would search {what}, write {out}.", json=common.json)
        return
    captions = _captions(published_outcome(chain["corpus"], common.workspace).folder)
    embedder = Embedder.load(model.folder)
    corpus = _encode_pool(embedder, embedder.source.digest, task, images, common.workspace)
    hits = _rank(embedder, task, corpus, {"text": text, "image": picture}, top, captions)
    write_page(out, text, picture, hits, images)
    if common.json:
        print_json({"model": model.label, "hits": [hit.to_json() for hit in hits], "page": out})
        return
    for hit in hits:
        say(f"{hit.rank:>3}  {hit.score:.3f}  {hit.caption}")
    say(f"model {model.label} · page {out}")


def _captions(folder: Path) -> dict[str, str]:
    """Returns captions by image id: of flags and pictographs of Atlas, or of the pictures of an imported corpus."""
    # Only Atlas has tables of entities below `corpus`.
    if not (folder / "corpus").is_dir():
        rows = read_shards(folder, "captions") if any(folder.glob("captions-*.parquet")) else []
        return {row["image"]: row["caption"] for row in rows}
    captions = {}
    for table, columns in (("places", ("flag_twemoji", "flag_openmoji")), ("pictographs", ("twemoji", "openmoji"))):
        for row in read_rows(folder / "corpus" / f"{table}.parquet"):
            captions.update({row[column]: row["name"] for column in columns})
    return captions


def _caption(document: Document, captions: Mapping[str, str]) -> str:
    """Returns one line for a document: its text, else the caption of its picture, else its id."""
    text = document.item.text or captions.get(document.item.image or "", document.id)
    return " ".join(text.split())[:100]


def _read_picture(path: Path) -> bytes:
    hint = "Give the path of a picture file."
    try:
        data = read_regular(path, MAX_BYTES, hint=hint)
    except FileNotFoundError as error:
        raise FoundryError(f"--image {path}: {error.strerror}", hint=hint) from error
    decode_rgb(data, str(path))  # raises for what is no picture, before a model is loaded
    return data


def _load_pool(tasks: Path, pool: str | None, text: str | None, image: Path | None) -> tuple[RetrievalTask, Images]:
    """Returns the task whose documents are searched, and the store of its pictures.

    Raises:
        FoundryError: There is no such task, or none that takes such a query.
    """
    modality = "T" if image is None else ("I" if text is None else "IT")
    by_name = {path.name: path for path in list_tasks(tasks)}
    name = _ATLAS_TASKS.get((pool or "flags", modality), "")
    if pool in by_name:
        path = by_name[pool]
    elif name in by_name:
        path = by_name[name]
    elif pool is None and (
        fitting := [path for path in by_name.values() if modalities_of(load_card(path).task_type)[0] == modality]
    ):
        path = fitting[0]
    else:
        raise FoundryError(
            f"There is nothing to search {f'called {pool!r}' if pool else f'with such a query ({modality})'}."
            f"{did_you_mean(pool or '', by_name)}",
            hint=f"--in takes {', '.join(by_name)}.",
        )
    return load_task(path), ImageStore(image_folders([path]))


def _rank(
    embedder: Embedder,
    task: RetrievalTask,
    corpus: np.ndarray,
    query: dict[str, object],
    top: int,
    captions: Mapping[str, str],
) -> list[Hit]:
    from gme_embedder.vectors.exact import search as exact_search

    item = {modality: value for modality, value in query.items() if value is not None}
    vector = embedder.encode([item], instruction=task.card.instruction)
    scores, rows = exact_search(vector, corpus, min(top, len(task.corpus)))
    ranked = [(score, task.corpus[row]) for score, row in zip(scores[0].tolist(), rows[0].tolist(), strict=True)]
    return [
        Hit(rank, score, document, _caption(document, captions))
        for rank, (score, document) in enumerate(ranked, start=1)
    ]


def _encode_pool(embedder: Embedder, digest: str, task: RetrievalTask, images: Images, workspace: Path) -> np.ndarray:
    """Returns the vectors of the pool [n, d], which are computed once for each model."""
    from gme_data.digests import sha256_json
    from gme_embedder.vectors.store import EmbeddingStore

    # Keyed by the items' content, so that tasks which share documents share their vectors.
    items = [document.item for document in task.corpus]
    return EmbeddingStore(workspace / "runs" / "embeddings").encode(
        digest,
        [sha256_json([item.text, item.image]) for item in items],
        lambda rows: embedder.encode([items[row] for row in rows], images=images, progress="encode the pool"),
    )
