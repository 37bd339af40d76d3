"""An edit changes one property, and its decoys are near misses."""

from __future__ import annotations

from atlas.edits import edit_text, pictograph_edits


def test_tone_edits_offer_the_other_tones_as_decoys(small_world):
    edits = [edit for edit in pictograph_edits(small_world.pictographs) if edit.kind == "tone"]
    assert edits
    for edit in edits:
        assert edit.before.id == edit.after.base_id
        assert edit.target not in edit.decoys
        assert edit.image not in edit.decoys
    assert max(len(edit.decoys) for edit in edits) == 4


def test_gender_edits_change_nothing_but_the_gender(small_world):
    for edit in pictograph_edits(small_world.pictographs):
        if edit.kind == "gender":
            assert edit.before.family == edit.after.family
            assert edit.after.gender == edit.value != edit.before.gender
            assert edit.before.name.endswith("right") == edit.after.name.endswith("right")


def test_edit_texts_differ_between_splits():
    texts = [{edit_text(kind, split, "dark", number) for number in range(30)}
             for kind in ("tone", "map") for split in ("train", "dev", "test")]  # fmt: skip
    assert len(set.union(*texts)) == sum(map(len, texts))
