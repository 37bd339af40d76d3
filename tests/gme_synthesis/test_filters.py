"""Each filter keeps what it should and says why it refuses the rest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gme_data.images import ImageRecord, ImageStore, write_images
from gme_synthesis.config import SynthesisConfig
from gme_synthesis.consistency import ConsistencyFilter
from gme_synthesis.pictures import PictureAttacher, PictureFilter
from gme_synthesis.pipeline import check_columns, run_stage
from gme_synthesis.records import Draft, Place, Reject, Stage
from gme_synthesis.world import World
from gme_synthesis.writer import TemplateWriter, write_questions


def test_writer_asks_with_several_wordings_and_refuses_what_the_passage_lacks(tiny_world: World) -> None:
    writer = TemplateWriter(tiny_world.templates, per_fact=2, seed=0)
    facts = [tiny_world.facts["no-f"], replace(tiny_world.facts["gm-f"], value="Dakar")]
    *drafts, refused = write_questions(facts, tiny_world.passages, tiny_world.places, writer)
    assert {draft.question for draft in drafts if isinstance(draft, Draft)} == {
        "What is the capital of Norway?",
        "Norway: capital?",
    }
    assert refused == Reject("write", "answer-not-in-passage", "gm-f", "Dakar")


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """A real, if poor, encoder: counts of letters, normalised."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_consistency_wants_the_own_passage_among_the_nearest(tiny_world: World) -> None:
    passages = list(tiny_world.passages.values())
    vectors = letters([passage.text for passage in passages])
    judge = ConsistencyFilter(passages, vectors, tiny_world.facts, letters, top_k=1, judged_per_fact=1)
    drafts = [Draft("no-f", 0, "Norway capital Oslo"), Draft("no-f", 1, "xyz"), Draft("gm-f", 0, "Norway capital Oslo")]
    kept, unjudged, refused = judge.run(drafts)
    assert kept == drafts[0]
    assert unjudged == drafts[1]  # takes the verdict of the fact's first question
    assert isinstance(refused, Reject)
    assert refused.reason == "passage-not-in-top-1"


def flag(colour: tuple[int, int, int], size: int = 48) -> ImageRecord:
    picture = Image.new("RGB", (size, size), "white")
    picture.paste(colour, (0, 0, size, size // 2))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")


@pytest.fixture
def flags(tmp_path: Path) -> tuple[dict[str, str], ImageStore]:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 48), "white").save(buffer, "PNG")
    blank = ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")
    red = flag((200, 0, 0))
    torn = replace(red, id="torn", bytes=red.bytes[:60])
    named = {
        "red": red, "near": flag((202, 0, 0)), "blue": flag((0, 0, 200)), "small": flag((0, 99, 0), 16),
        "blank": blank, "torn": torn,
    }  # fmt: skip
    write_images(tmp_path, named.values())
    return {name: record.id for name, record in named.items()}, ImageStore([tmp_path])


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        ("blue", None),
        ("red", "look-alike-flag"),
        ("near", "look-alike-flag"),
        ("small", "picture-too-small"),
        ("blank", "picture-blank"),
        ("torn", "picture-not-decodable"),
        ("nowhere", "picture-missing"),
    ],
)
def test_picture_filter(flags: tuple[dict[str, str], ImageStore], picture: str, reason: str | None) -> None:
    ids, store = flags
    places = [
        Place(name, name, (), f"place:{name}", {"twemoji": id_}, "MIT")
        for name, id_ in ids.items()
        if name in ("red", "near", "blue")
    ]
    judge = PictureFilter(store, places, SynthesisConfig())
    id_ = ids.get(picture, "nowhere")
    (outcome,) = judge.run([Draft("f", 0, "q", fused="q", flag=id_, other_flag=id_, illustration=id_)])
    assert (outcome.reason if isinstance(outcome, Reject) else None) == reason


def test_look_alikes_of_one_entity_group_are_no_trouble(flags: tuple[dict[str, str], ImageStore]) -> None:
    ids, store = flags
    places = [Place(name, name, (), "place:one", {"twemoji": ids[name]}, "MIT") for name in ("red", "near")]
    draft = Draft("f", 0, "q", fused="q", flag=ids["red"], other_flag=ids["red"], illustration=ids["red"])
    assert list(PictureFilter(store, places, SynthesisConfig()).run([draft])) == [draft]


def test_attacher_uses_both_styles_and_never_the_same_on_both_sides(tiny_world: World) -> None:
    drafts = [Draft("no-f", number, "q") for number in range(20)]
    attached = [draft for draft in PictureAttacher(tiny_world, seed=0).run(drafts) if isinstance(draft, Draft)]
    assert {draft.flag for draft in attached} == {"no-t", "no-o"}
    assert all({draft.flag, draft.other_flag} == {"no-t", "no-o"} for draft in attached)


def test_stages_must_fit_together() -> None:
    reader = Stage("reader", ("fused",), (), iter)
    with pytest.raises(ValueError, match="reads \\['fused'\\]"):
        check_columns([reader], ("question",))
    liar = Stage("liar", (), ("fused",), iter)
    with pytest.raises(ValueError, match="left \\['fused'\\] empty"):
        run_stage(liar, [Draft("f", 0, "q")])
