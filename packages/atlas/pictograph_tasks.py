"""Retrieval tasks about pictographs: the other drawing (I->I), names (T->I, I->T), edits (IT->I).

The pool holds all pictographs of the split and as many others as there is room for. Skin tones enter the edits only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atlas.benchmark import Asked, TaskPlan, make_task
from atlas.choice import rank, sample
from atlas.config import AtlasConfig
from atlas.drawings import OUTLINED, PLAIN, STYLES
from atlas.edits import Edit, pictograph_edits, wish
from atlas.licences import combine
from atlas.pictographs import BASE
from atlas.world import PictographRow, World
from gme_data.items import Item
from gme_data.tasks import Document, RetrievalTask

_METRIC = "hit_rate_at_5"
_SAME_NAME = "Drawings and names of the same emoji; names that several emoji share count for all of them."


def pictograph_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """The pictograph tasks of ``dev`` or ``test``."""
    bases = [row for row in world.pictographs if row.variant == BASE]
    pool = _pool(bases, config.pictograph_pool, config.seed, split)
    own = [row for row in pool if row.split == split]
    outlined = [_drawing(row, OUTLINED, world) for row in pool]
    drawings = [_drawing(row, style, world) for row in pool for style in STYLES]
    names = [Document(row.id, Item(row.name), row.entity_group, row.licence) for row in pool]
    yield make_task(
        TaskPlan(
            "pictograph-i2i", "I->I", _METRIC, "pictograph", "unseen",
            "A flat drawing of a thing; the outlined drawing of the same thing.", _SAME_NAME,
        ),
        outlined,
        [_ask_drawing(row, world, {f"{row.id}-{OUTLINED}"}) for row in own], config, split,
    )  # fmt: skip
    yield make_task(
        TaskPlan(
            "pictograph-name-t2i", "T->I", _METRIC, "pictograph-name", "unseen",
            "The English name of a thing; its drawings in two styles.", _SAME_NAME,
        ),
        drawings, [_ask_name(row, "en", own) for row in own], config, split,
    )  # fmt: skip
    yield make_task(
        TaskPlan(
            "pictograph-names-multilingual-t2i", "T->I", _METRIC, "pictograph-name", "unseen",
            "The name of a thing in one of 13 languages; its drawings in two styles.", _SAME_NAME,
        ),
        drawings,
        [_ask_name(row, lang, own) for row in own for lang in _names(row) if lang != "en"], config, split,
    )  # fmt: skip
    yield make_task(
        TaskPlan(
            "pictograph-name-i2t", "I->T", _METRIC, "pictograph-name", "unseen",
            "A flat drawing of a thing; its English name.", _SAME_NAME,
        ),
        names,
        [_ask_drawing(row, world, {other.id for other in own if other.name == row.name}) for row in own],
        config, split,
    )  # fmt: skip
    yield from _edit_tasks(world, config, split)


def _pool(rows: Sequence[PictographRow], size: int, seed: int, split: str) -> list[PictographRow]:
    """All rows of the split, filled up to `size` with others that the split may see, trained ones first."""
    own = [row for row in rows if row.split == split]
    visible = {"train", "dev"} if split == "test" else {"train"}
    others = [row for row in rows if row.split in visible]
    return own + sample(others, max(0, size - len(own)), seed, lambda row: f"pool:{row.id}")


def _drawing(row: PictographRow, style: str, world: World) -> Document:
    image = row.picture(style)
    return Document(f"{row.id}-{style}", Item(image=image), row.entity_group, world.picture_licences[image])


def _ask_drawing(row: PictographRow, world: World, relevant: set[str]) -> Asked:
    licence = world.picture_licences[row.twemoji]
    return Asked(row.id, Item(image=row.twemoji), row.entity_group, row.gender, licence, frozenset(relevant))


def _ask_name(row: PictographRow, language: str, own: Sequence[PictographRow]) -> Asked:
    name = _names(row)[language]
    same = [other for other in own if _names(other).get(language) == name]
    relevant = frozenset(f"{other.id}-{style}" for other in same for style in STYLES)
    return Asked(f"{row.id}-{language}", Item(name), row.entity_group, language, row.licence, relevant)


def _names(row: PictographRow) -> dict[str, str]:
    return {entry["lang"]: entry["name"] for entry in row.names}


def _edit_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """Wishes about the figure, and wishes for the other style, over one pool: what some wish asks for, nothing else.

    They are tasks of their own because they ask for different skills: a change of style is `pictograph-i2i` with the
    style said in words, a change of tone or gender keeps the style and looks for a detail.
    """
    edits = [edit for edit in pictograph_edits(world.pictographs) if edit.in_pool]
    corpus = _edit_pool(edits, world, config, split)
    relevance = "The one drawing of the emoji that the wish leads to."
    figure = TaskPlan(
        "pictograph-edit-it2i", "IT->I", _METRIC, "pictograph-edit", "unseen",
        "A flat drawing and a wish (skin tone, gender); the flat drawing that grants it.", relevance,
    )  # fmt: skip
    style = TaskPlan(
        "pictograph-style-it2i", "IT->I", _METRIC, "pictograph-edit", "unseen",
        "A flat drawing and the wish to see it outlined; the outlined drawing of the same thing.", relevance,
    )  # fmt: skip
    for plan, kinds in ((figure, {"tone", "gender"}), (style, {"style"})):
        own = [edit for edit in edits if edit.before.split == split and edit.kind in kinds]
        yield make_task(plan, corpus, [_ask_edit(edit, world, config, split) for edit in own], config, split)


def _edit_pool(edits: Sequence[Edit], world: World, config: AtlasConfig, split: str) -> list[Document]:
    targets = {(edit.after.id, edit.target): edit.after for edit in edits}
    own = {key: row for key, row in targets.items() if row.split == split}
    visible = {"train", "dev"} if split == "test" else {"train"}
    others = sample(
        (key for key, row in targets.items() if row.split in visible),
        max(0, config.edit_pool - len(own)),
        config.seed,
        lambda key: f"edit-pool:{key[0]}:{key[1]}",
    )
    return [_target(targets[key], key[1], world) for key in [*own, *others]]


def _target(row: PictographRow, image: str, world: World) -> Document:
    style = PLAIN if image == row.twemoji else OUTLINED
    return Document(f"{row.id}-{style}", Item(image=image), row.entity_group, world.picture_licences[image])


def _ask_edit(edit: Edit, world: World, config: AtlasConfig, split: str) -> Asked:
    text = wish(edit.kind, split, edit.value, rank(config.seed, "wish", edit.id))
    licence = combine(world.picture_licences[edit.image])
    target = _target(edit.after, edit.target, world).id
    return Asked(edit.id, Item(text, edit.image), edit.before.entity_group, edit.kind, licence, frozenset({target}))
