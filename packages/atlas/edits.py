"""Edits for composed image retrieval (IT->I): a picture, a text that says what to change, and the changed picture.

Pictographs change skin tone, gender or drawing style; a flag is changed to the map of its place. Each split words the
text differently, so that a model can't learn the templates of the test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from atlas.drawings import OUTLINED, PLAIN, STYLES
from atlas.pictographs import BASE
from atlas.world import PictographRow

EDIT_TEMPLATES = {
    "tone": {
        "train": (
            "with {} skin tone",
            "the same with {} skin",
            "change the skin tone to {}",
            "make the skin {}",
            "{} skin tone version",
            "same drawing but with a {} skin tone",
            "recolor the skin: {}",
            "as a person with {} skin",
        ),
        "dev": ("give the figure {} skin", "turn this into the {} skinned one", "skin color {} please"),
        "test": ("now with a {} complexion", "show it in {} skin color", "I want the {} variant of the hands or face"),
    },
    "gender": {
        "train": (
            "the same, but a {}",
            "as a {}",
            "change the person into a {}",
            "make it a {}",
            "replace the figure by a {}",
            "{} version",
            "with a {} instead",
            "same scene with a {}",
        ),
        "dev": ("let a {} do it", "turn the character into a {}", "swap the gender to {}"),
        "test": ("what if it were a {}", "redraw it for a {}", "the {} doing just the same"),
    },
    "style": {
        "train": (
            "as an outlined drawing",
            "redrawn with black outlines",
            "the same with thick contours",
            "in line art style",
            "draw it with dark borders",
            "outlined version",
            "as a drawing with black lines",
            "change the style to outlined",
        ),
        "dev": ("with inked edges", "traced in black", "the version that has contour lines"),
        "test": ("as if drawn with a black pen", "in the style that has strokes around shapes", "with a bold dark rim"),
    },
    "map": {
        "train": (
            "outline map of this country",
            "the map of the place with this flag",
            "show the shape of this country",
            "what does this country look like on a map?",
            "borders of the place that flies this flag",
            "map of it",
            "the outline of its territory",
            "its shape on the map",
        ),
        "dev": ("contour of this nation", "a chart of the land with this banner", "how is this state shaped?"),
        "test": (
            "silhouette of the country this belongs to",
            "draw where its frontiers run",
            "its territory seen from above",
        ),
    },
}
"""Templates of the text by kind of edit and split; ``{}`` is the placeholder for the tone or the gender."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of a pictograph.

    Attributes:
        id: Unique id.
        kind: Key of `EDIT_TEMPLATES`.
        value: Value of the placeholder; empty for templates without one.
        before: Row of the pictograph that is changed.
        after: Row of the changed pictograph.
        image: Picture of `before`.
        target: Picture of `after`.
        decoys: Hard negatives, such as the other tones.
        in_pool: Whether tasks use it; tones of outlined drawings are for training only.
    """

    id: str
    kind: str
    value: str
    before: PictographRow
    after: PictographRow
    image: str
    target: str
    decoys: tuple[str, ...]
    in_pool: bool


def pictograph_edits(rows: Iterable[PictographRow]) -> Iterator[Edit]:
    """Yields every edit between the pictographs, in the order of the rows."""
    rows = list(rows)
    bases = [row for row in rows if row.variant == BASE]
    tones: dict[str, list[PictographRow]] = defaultdict(list)
    scenes: dict[tuple[str, bool], list[PictographRow]] = defaultdict(list)
    for row in rows:
        if row.variant != BASE:
            tones[row.base_id].append(row)
        elif row.gender != "none":
            scenes[_scene(row)].append(row)
    for base in bases:
        for style in STYLES:
            yield from _tone_edits(base, tones[base.id], style)
        for other in scenes[_scene(base)] if base.gender != "none" else ():
            if other.gender in ("man", "woman") and other.gender != base.gender:
                yield _edit("gender", other.gender, base, other, (PLAIN, PLAIN), ())
        yield _edit("style", "", base, base, (PLAIN, OUTLINED), ())


def edit_text(kind: str, split: str, value: str, choice: int) -> str:
    """Returns the text of an edit by template number `choice` (modulo their number) of a split."""
    templates = EDIT_TEMPLATES[kind][split]
    return templates[choice % len(templates)].format(value)


def _scene(row: PictographRow) -> tuple[str, bool]:
    """Returns a key that rows share which differ in gender alone; direction and number of people agree."""
    return f"{row.family}|{row.name.split()[0] in ('men', 'women', 'people')}", row.name.endswith("facing right")


def _tone_edits(base: PictographRow, tones: list[PictographRow], style: str) -> Iterator[Edit]:
    for tone in tones:
        images = {base.picture(style), tone.picture(style)}
        if len(images) == 1:
            continue  # the drawing shows no skin, so the tone changes nothing
        decoys = tuple(other.picture(style) for other in tones if other.picture(style) not in images)
        yield _edit("tone", tone.variant, base, tone, (style, style), decoys)


def _edit(
    kind: str,
    value: str,
    before: PictographRow,
    after: PictographRow,
    styles: tuple[str, str],
    decoys: tuple[str, ...],
) -> Edit:
    return Edit(
        id=f"{before.id}-{kind}-{value or styles[1]}-{styles[0]}",
        kind=kind,
        value=value,
        before=before,
        after=after,
        image=before.picture(styles[0]),
        target=after.picture(styles[1]),
        decoys=decoys,
        in_pool=styles[0] == PLAIN,
    )
