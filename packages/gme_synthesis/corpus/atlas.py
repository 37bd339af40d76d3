"""Atlas as a corpus: passages with their structured fields, flags as portraits, questions worded as its benchmark does.

Only one split is read; the rows of the others are dropped here, so no later step can see them. The fields are gold
answers, which `gme_synthesis.quality` compares with what a language model writes over these passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gme_data.atlas_tables import columns_of
from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import Images, ImageStore
from gme_data.parquet import read_rows, shard_paths
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.recipes import Recipe
from gme_synthesis.corpus.store import IMAGES, Caption, Corpus

Rows = Mapping[str, dict[str, Any]]
_STYLES = ("twemoji", "openmoji")
_COLUMNS = {
    "places": "place_id name aliases entity_group split flag_twemoji flag_openmoji licence",
    "passages": "id place_id section text page illustration split licence",
    "facts": "id place_id section field value passage_id entity_group split",
    "wordings": "field split kind template",
}
RECIPES = (
    Recipe(
        "place-question",
        "T->T",
        "Retrieve a passage about the place that answers the question.",
        ("question", ""),
        ("passage", ""),
        pictured=False,
    ),
    Recipe(
        "page-question",
        "T->VD",
        "Find a screenshot of a page that is relevant to the user's question.",
        ("question", ""),
        ("", "page"),
        pictured=False,
    ),
    Recipe(
        "illustrated-question",
        "T->IT",
        "Find an illustrated passage that answers the question.",
        ("question", ""),
        ("passage", "illustration"),
    ),
    Recipe(
        "flag-question",
        "IT->T",
        "Retrieve a passage that answers the question about the place whose flag is shown.",
        ("fused", "entity-image"),
        ("passage", ""),
    ),
    Recipe(
        "flag-question-illustrated",
        "IT->IT",
        "Retrieve a flag with a passage that answers the question about the image.",
        ("fused", "entity-image"),
        ("passage", "other-entity-image"),
    ),
)
"""The recipes of Atlas; their instructions are word for word those of the benchmark tasks of the same source."""


def is_atlas(folder: Path) -> bool:
    """Returns whether a folder holds an Atlas."""
    return (folder / "corpus" / "places.parquet").is_file()


def open_atlas(folder: Path, split: str = "train") -> Corpus:
    """Opens a split of Atlas; only ``train`` comes with its examples and tasks.

    Raises:
        FoundryError: A table or column is missing, the split is empty, or a fact refers to no passage of the split.
    """
    tables = {name: _rows(folder / "corpus", name, split) for name in _COLUMNS}
    places = {row["place_id"]: row for row in tables["places"]}
    images = ImageStore([folder / IMAGES])
    passages = list(_passages(places, tables["passages"], _facts_by_passage(folder, tables), images))
    licences = {
        row["id"]: row["licence"]
        for path in shard_paths(folder / IMAGES, "images")
        for row in pq.read_table(path, columns=["id", "licence"]).to_pylist()
    }
    captions = [
        Caption(image, place["name"], place["entity_group"], licences[image])
        for place in tables["places"]
        for image in _flags(place).values()
    ]
    is_train = split == "train"
    return Corpus(
        size=len(passages),
        passages=lambda: iter(passages),
        images=images,
        captions={caption.image: caption for caption in sorted(captions, key=attrgetter("image"))},
        recipes=RECIPES,
        wordings=_wordings(tables["wordings"]),
        examples=read_examples(folder / "examples" / "train") if is_train else (),
        tasks=folder / "tasks" if is_train else None,
    )


def _rows(corpus: Path, table: str, split: str) -> list[dict[str, Any]]:
    path = corpus / f"{table}.parquet"
    rows = [row for row in read_rows(path, columns_of(table, _COLUMNS[table])) if row["split"] == split]
    if not rows:
        raise FoundryError(f"{path}: no row of the {split} split.", hint="Rebuild the corpus: `gme atlas build`.")
    return rows


def _facts_by_passage(
    folder: Path, tables: Mapping[str, Sequence[dict[str, Any]]]
) -> Mapping[str, list[dict[str, Any]]]:
    """Returns the rows of facts by passage id; a passage without facts has an empty list."""
    facts: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in tables["passages"]}
    places = {row["place_id"] for row in tables["places"]}
    for fact in tables["facts"]:
        if fact["place_id"] not in places or fact["passage_id"] not in facts:
            raise FoundryError(
                f"{folder / 'corpus' / 'facts.parquet'}: fact {fact['id']!r} points to a place or passage outside of "
                f"the {fact['split']} split.",
                hint="Rebuild the corpus: `gme atlas build`.",
            )
        facts[fact["passage_id"]].append(fact)
    return facts


def _passages(
    places: Rows, passages: Sequence[dict[str, Any]], facts: Mapping[str, list[dict[str, Any]]], images: Images
) -> Iterator[Candidate]:
    # Of two near duplicates the earlier one is kept, so the order must not be that of the rows in the file.
    for row in sorted(passages, key=lambda passage: str(passage["id"])):
        place = places[row["place_id"]]
        yield Candidate(
            id=row["id"],
            text=row["text"],
            title=place["name"],
            aliases=tuple(place["aliases"] or ()),
            kind="country",
            domain="place",  # so no classifier is asked
            entity_group=place["entity_group"],
            section=row["section"],
            facts={fact["field"]: fact["value"] for fact in facts[row["id"]]},
            fact_ids={fact["field"]: fact["id"] for fact in facts[row["id"]]},
            picture=row["illustration"] or "",
            portraits=_flags(place),
            portrait_caption=f"The flag of {place['name']}.",
            page=row["page"] if row["page"] in images else "",
            licence=row["licence"],
            source="atlas",
        )


def _flags(place: dict[str, Any]) -> dict[str, str]:
    return {style: place[f"flag_{style}"] for style in _STYLES if place[f"flag_{style}"]}


def _wordings(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Returns the templates of questions by field, of both kinds.

    A deictic template gets the name where it would get a reference: the reference is put in by the rewrite.
    """
    templates: dict[str, set[str]] = {}
    for row in rows:
        templates.setdefault(row["field"], set()).add(row["template"].replace("{reference}", "{place}"))
    return {name: tuple(sorted(frames)) for name, frames in sorted(templates.items())}
