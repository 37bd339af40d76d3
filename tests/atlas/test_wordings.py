"""Every field has templates in every split, and no template is in two."""

from __future__ import annotations

from collections import Counter, defaultdict

from atlas.fields import FIELDS
from atlas.wordings import PHRASINGS, all_wordings


def test_every_field_has_templates_in_every_split_and_none_is_in_two():
    assert set(PHRASINGS) == {field.name for field in FIELDS}
    counts: Counter[tuple[str, str, str]] = Counter()
    splits = defaultdict(set)
    for wording in all_wordings():
        assert ("{place}" in wording.template) == (wording.kind == "named")
        assert ("{reference}" in wording.template) == (wording.kind == "deictic")
        counts[wording.field, wording.split, wording.kind] += 1
        splits[wording.template.lower()].add(wording.split)
    for field in PHRASINGS:
        assert counts[field, "train", "named"] >= 8
        assert counts[field, "dev", "named"] == counts[field, "test", "named"] == 3
        assert min(counts[field, split, "deictic"] for split in ("train", "dev", "test")) >= 2
    assert all(len(splits_of_template) == 1 for splits_of_template in splits.values())
