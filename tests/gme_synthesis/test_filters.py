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
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import Reject, Stage, check_columns, run_stage
from gme_synthesis.steps.consistency import ConsistencyStep
from gme_synthesis.steps.drafts import DraftStep
from gme_synthesis.steps.picture_score import PictureFilter, look_alikes
from gme_synthesis.steps.picture_search import PortraitStep
from gme_synthesis.steps.question import QuestionStep

WORDINGS = {"capital": ("What is the capital of {place}?", "{place}: capital?")}
NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)
GAMBIA = replace(NORWAY, id="gm-p", text="The Gambia. Capital: Banjul.", title="The Gambia", fact_ids={})


def test_facts_are_asked_in_several_wordings_and_refused_where_the_passage_lacks_the_answer() -> None:
    drafts, none, _ = run_stage(DraftStep(2).stage(), [NORWAY, GAMBIA, replace(NORWAY, id="x", facts={})])
    assert [(one.fact, one.wording) for one in drafts] == [
        ("no-f", 0), ("no-f", 1), ("gm-p/capital", 0), ("gm-p/capital", 1),
    ]  # fmt: skip
    assert [reject.reason for reject in none] == ["no-facts"]
    asker = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    asked, refused, _ = run_stage(QuestionStep(asker).stage(), drafts)
    assert {one.question for one in asked} == {"What is the capital of Norway?", "Norway: capital?"}
    assert {one.answer for one in asked} == {"Oslo"}
    assert [reject.subject for reject in refused] == ["gm-p/capital/0", "gm-p/capital/1"]


def test_an_answer_in_the_name_of_a_given_fact_is_no_fault() -> None:
    congo = Candidate("cg", "Congo (Brazzaville). Capital: Brazzaville.", title="Congo (Brazzaville)")
    congo = replace(congo, facts={"capital": "Brazzaville"})
    asker = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    drafts, _, _ = run_stage(DraftStep(2).stage(), [congo])
    assert len(run_stage(QuestionStep(asker).stage(), drafts)[0]) == 2
    (chosen_by_the_writer,) = run_stage(QuestionStep(asker).stage(), [congo])[1]
    assert chosen_by_the_writer.reason == "answer-in-question"


def test_a_fact_has_no_more_wordings_than_its_frames() -> None:
    asker = LLMClient(RuleWriter(wordings=WORDINGS), None, attempts=1)
    drafts, _, _ = run_stage(DraftStep(3).stage(), [NORWAY])
    asked, refused, _ = run_stage(QuestionStep(asker).stage(), drafts)
    assert (len(asked), [reject.reason for reject in refused]) == (2, ["wrong-fields"])


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """A real, if poor, encoder: counts of letters, normalised."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_consistency_wants_the_own_passage_among_the_nearest() -> None:
    vectors = letters([NORWAY.text, GAMBIA.text])
    judge = ConsistencyStep({"no-p": 0, "gm-p": 1}, vectors, letters, top_k=1, encoded_per_fact=1)
    asked = replace(NORWAY, fact="no-f", question="Norway capital Oslo")
    drafts = [asked, replace(asked, wording=1, question="xyz"), replace(asked, id="gm-p", fact="gm-f")]
    kept, unjudged, refused = judge.run(drafts)
    assert kept == drafts[0]
    assert unjudged == drafts[1]  # takes the verdict of the fact's first question
    assert isinstance(refused, Reject)
    assert (refused.reason, refused.subject) == ("passage-not-in-top-1", "gm-f/0")
    (later,) = judge.run([replace(asked, wording=1)])  # the first wording was refused before
    assert isinstance(later, Candidate)


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
        "blank": blank, "torn": torn, "green": flag((0, 99, 0)),
    }  # fmt: skip
    write_images(tmp_path, named.values())
    return {name: record.id for name, record in named.items()}, ImageStore([tmp_path])


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        ("blue", None),
        ("red", "look-alike"),
        ("near", "look-alike"),
        ("green", "look-alike"),  # the other drawing of one that looks like another's
        ("small", "picture-too-small"),
        ("blank", "picture-blank"),
        ("torn", "picture-not-decodable"),
        ("nowhere", "picture-not-decodable"),
    ],
)
def test_picture_filter(flags: tuple[dict[str, str], ImageStore], picture: str, reason: str | None) -> None:
    ids, store = flags
    owned = [("place:red", ids["red"]), ("place:red", ids["green"]), ("place:near", ids["near"]), ("b", ids["blue"])]
    judge = PictureFilter(store.load, None, ambiguous=look_alikes(owned, store.load, 3.0))
    draft = replace(NORWAY, entity_images=(EntityImage(ids.get(picture, "nowhere"), "search"),))
    (outcome,) = judge.run([draft])
    assert (outcome.reason if isinstance(outcome, Reject) else None) == reason


def test_look_alikes_of_one_entity_group_are_no_trouble(flags: tuple[dict[str, str], ImageStore]) -> None:
    ids, store = flags
    assert not look_alikes([("place:one", ids["red"]), ("place:one", ids["near"]), ("x", "no")], store.load, 3.0)


def test_each_picture_is_looked_at_once_however_many_carry_it(flags: tuple[dict[str, str], ImageStore]) -> None:
    ids, store = flags
    looked: list[str] = []

    def load(id_: str) -> Image.Image:
        looked.append(id_)
        return store.load(id_)

    judge = PictureFilter(load, None)
    drafts = [replace(NORWAY, wording=n, entity_images=(EntityImage(ids["blue"], "search"),)) for n in range(5)]
    assert list(judge.run(drafts)) == drafts == list(judge.run(drafts))
    assert looked == [ids["blue"]]


def test_portraits_come_in_both_orders_and_no_more_than_asked_for() -> None:
    drafts = [replace(NORWAY, wording=n, portraits={"twemoji": "t", "openmoji": "o"}) for n in range(20)]
    shown = {tuple(sight.image for sight in one.entity_images) for one in PortraitStep(2, seed=0).run(drafts)}
    assert shown == {("t", "o"), ("o", "t")}
    assert {len(one.entity_images) for one in PortraitStep(1, seed=0).run(drafts)} == {1}


def test_stages_must_fit_together() -> None:
    reader = Stage("reader", ("fused",), (), iter)
    with pytest.raises(ValueError, match="reads \\['fused'\\]"):
        check_columns([reader], ("question",))
    liar = Stage("liar", (), ("fused",), iter)
    with pytest.raises(ValueError, match="left \\['fused'\\] empty"):
        run_stage(liar, [NORWAY])
