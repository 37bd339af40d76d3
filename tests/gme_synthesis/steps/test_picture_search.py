"""Pictures of entities from the captions and the portraits of a corpus."""

from __future__ import annotations

from dataclasses import replace

from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.encoders import load_encoder
from gme_synthesis.stages import Reject
from gme_synthesis.steps.picture_search import PictureBank, PortraitStep, RequirePictures, SearchStep

NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)


def test_portraits_come_in_both_orders_and_no_more_than_asked_for() -> None:
    drafts = [replace(NORWAY, wording=n, portraits={"twemoji": "t", "openmoji": "o"}) for n in range(20)]
    shown = {tuple(image.image for image in one.entity_images) for one in PortraitStep(2, seed=0).run(drafts)}
    assert shown == {("t", "o"), ("o", "t")}
    assert {len(one.entity_images) for one in PortraitStep(1, seed=0).run(drafts)} == {1}


PANDA = Candidate("p", "The red panda lives in trees.", entity="red panda", fused="Where does this animal live?")


def test_the_bank_finds_by_name_and_nothing_that_is_too_far() -> None:
    captions = {"1": "red panda", "2": "red panda in a tree", "3": "the Forth Bridge", "4": "a bowl of soup"}
    bank = PictureBank(captions, load_encoder("minilm").passages, min_similarity=0.7)
    panda, nothing = SearchStep(bank, 5).run([PANDA, replace(PANDA, entity="quantum chromodynamics")])
    assert [image.image for image in panda.entity_images] == ["1", "2"]
    assert bank.find(["red panda"], 1) == [[EntityImage("1", "search", "bank")]]
    kept, refused = RequirePictures().run([panda, nothing])
    assert kept == panda
    assert refused == Reject("pictures", "no-picture", "p", "quantum chromodynamics")
