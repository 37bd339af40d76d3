"""Retrieval tasks about pictographs: the other drawing (I->I), names (T->I, I->T), edits (IT->I).

A pool has all pictographs of the split, filled up with those of other splits. Skin tones occur in the edits only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atlas.benchmark import BenchmarkQuery, TaskSpec, make_task
from atlas.choice import seeded_hash, seeded_sample
from atlas.config import AtlasConfig
from atlas.drawings import OUTLINED, PLAIN, STYLES
from atlas.edits import Edit, edit_text, pictograph_edits
from atlas.pictographs import BASE
from atlas.world import PictographRow, World
from gme_data.items import Item
from gme_data.licences import combine_licences
from gme_data.tasks import Document, RetrievalTask

_METRIC = "hit_rate_at_5"
_SAME_NAME = "Drawings and names of the same emoji; names that several emoji share count for all of them."


def pictograph_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """Yields the pictograph tasks of ``dev`` or ``test``."""
    bases = [row for row in world.pictographs if row.variant == BASE]
    pool = _pool(bases, config.pictograph_pool, config.seed, split)
    held_out = [row for row in pool if row.split == split]
    outlined = [_drawing(row, OUTLINED, world) for row in pool]
    drawings = [_drawing(row, style, world) for row in pool for style in STYLES]
    names = [Document(row.id, Item(row.name), row.entity_group, row.licence) for row in pool]
    yield make_task(
        TaskSpec(
            "pictograph-i2i", "I->I", _METRIC, "pictograph", "unseen",
            "A flat drawing of a thing; the outlined drawing of the same thing.", _SAME_NAME,
        ),
        outlined,
        [_drawing_query(row, world, {f"{row.id}-{OUTLINED}"}) for row in held_out], config, split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "pictograph-name-t2i", "T->I", _METRIC, "pictograph-name", "unseen",
            "The English name of a thing; its drawings in two styles.", _SAME_NAME,
        ),
        drawings, [_name_query(row, "en", held_out) for row in held_out], config, split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "pictograph-names-multilingual-t2i", "T->I", _METRIC, "pictograph-name", "unseen",
            "The name of a thing in one of 13 languages; its drawings in two styles.", _SAME_NAME,
        ),
        drawings,
        [_name_query(row, lang, held_out) for row in held_out for lang in _names(row) if lang != "en"], config, split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "pictograph-name-i2t", "I->T", _METRIC, "pictograph-name", "unseen",
            "A flat drawing of a thing; its English name.", _SAME_NAME,
        ),
        names,
        [
            _drawing_query(row, world, {other.id for other in held_out if other.name == row.name})
            for row in held_out
        ],
        config, split,
    )  # fmt: skip
    yield from _edit_tasks(world, config, split)


def _pool(rows: Sequence[PictographRow], size: int, seed: int, split: str) -> list[PictographRow]:
    """Returns all rows of the split, filled up to `size` with a sample of the splits that its pools may show.

    A dev pool shows no test pictograph, since recipes are chosen on dev.
    """
    held_out = [row for row in rows if row.split == split]
    visible = {"train", "dev"} if split == "test" else {"train"}
    others = [row for row in rows if row.split in visible]
    return held_out + seeded_sample(others, max(0, size - len(held_out)), seed, lambda row: f"pool:{row.id}")


def _drawing(row: PictographRow, style: str, world: World) -> Document:
    image = row.picture(style)
    return Document(f"{row.id}-{style}", Item(image=image), row.entity_group, world.picture_licences[image])


def _drawing_query(row: PictographRow, world: World, relevant: set[str]) -> BenchmarkQuery:
    licence = world.picture_licences[row.twemoji]
    return BenchmarkQuery(row.id, Item(image=row.twemoji), row.entity_group, row.gender, licence, frozenset(relevant))


def _name_query(row: PictographRow, language: str, held_out: Sequence[PictographRow]) -> BenchmarkQuery:
    name = _names(row)[language]
    namesakes = [other for other in held_out if _names(other).get(language) == name]
    relevant = frozenset(f"{other.id}-{style}" for other in namesakes for style in STYLES)
    return BenchmarkQuery(f"{row.id}-{language}", Item(name), row.entity_group, language, row.licence, relevant)


def _names(row: PictographRow) -> dict[str, str]:
    return {entry["lang"]: entry["name"] for entry in row.names}


def _edit_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """Yields a task of edits of tone and gender and one of edits of style, over one pool: the targets of all edits.

    They are two tasks because they need different skills: an edit of style is `pictograph-i2i` with the style in
    words, an edit of tone or gender keeps the style and changes a detail.
    """
    edits = [edit for edit in pictograph_edits(world.pictographs) if edit.in_pool]
    corpus = _edit_pool(edits, world, config, split)
    relevance = "The one drawing of the emoji that the wish leads to."
    figure = TaskSpec(
        "pictograph-edit-it2i", "IT->I", _METRIC, "pictograph-edit", "unseen",
        "A flat drawing and a wish (skin tone, gender); the flat drawing that grants it.", relevance,
    )  # fmt: skip
    style = TaskSpec(
        "pictograph-style-it2i", "IT->I", _METRIC, "pictograph-edit", "unseen",
        "A flat drawing and the wish to see it outlined; the outlined drawing of the same thing.", relevance,
    )  # fmt: skip
    for spec, kinds in ((figure, {"tone", "gender"}), (style, {"style"})):
        held_out = [edit for edit in edits if edit.before.split == split and edit.kind in kinds]
        yield make_task(spec, corpus, [_edit_query(edit, world, config, split) for edit in held_out], config, split)


def _edit_pool(edits: Sequence[Edit], world: World, config: AtlasConfig, split: str) -> list[Document]:
    targets = {(edit.after.id, edit.target): edit.after for edit in edits}
    held_out = {key: row for key, row in targets.items() if row.split == split}
    visible = {"train", "dev"} if split == "test" else {"train"}
    others = seeded_sample(
        (key for key, row in targets.items() if row.split in visible),
        max(0, config.edit_pool - len(held_out)),
        config.seed,
        lambda key: f"edit-pool:{key[0]}:{key[1]}",
    )
    return [_target(targets[key], key[1], world) for key in [*held_out, *others]]


def _target(row: PictographRow, image: str, world: World) -> Document:
    style = PLAIN if image == row.twemoji else OUTLINED
    return Document(f"{row.id}-{style}", Item(image=image), row.entity_group, world.picture_licences[image])


def _edit_query(edit: Edit, world: World, config: AtlasConfig, split: str) -> BenchmarkQuery:
    text = edit_text(edit.kind, split, edit.value, seeded_hash(config.seed, "wish", edit.id))
    licence = combine_licences(world.picture_licences[edit.image])
    target = _target(edit.after, edit.target, world).id
    item = Item(text, edit.image)
    return BenchmarkQuery(edit.id, item, edit.before.entity_group, edit.kind, licence, frozenset({target}))
