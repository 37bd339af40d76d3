"""Entity groups keep look-alikes together, and every stratum has the same shares."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from atlas.config import AtlasConfig, SplitShares
from atlas.splits import assign_splits, merge_lookalikes


def test_shares_hold_in_every_stratum():
    strata = {f"{stratum}-{number}": stratum for stratum in "abc" for number in range(100)}
    splits = assign_splits(strata, SplitShares(), seed=3)
    for stratum in "abc":
        counts = Counter(splits[group] for group in strata if strata[group] == stratum)
        assert abs(counts["train"] - 60) <= 1
        assert abs(counts["dev"] - 15) <= 1
        assert abs(counts["test"] - 25) <= 1


def test_shares_must_add_up():
    with pytest.raises(ValidationError, match="must be 1"):
        AtlasConfig(shares={"train": 0.5, "dev": 0.2, "test": 0.2})


def test_lookalikes_merge_through_any_style_and_in_chains():
    flat = np.array([[0.0], [50.0], [50.1], [99.0]])
    outlined = np.array([[0.0], [10.0], [90.0], [0.1]])
    groups = merge_lookalikes(["a", "b", "c", "d"], [flat, outlined], limit=0.5)
    assert groups == {"a": "a", "b": "b", "c": "b", "d": "a"}
