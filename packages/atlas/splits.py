"""Splits entity groups into train, dev and test.

A group holds what must be in one split: flags that look alike, pictographs of one name family. Nothing about a test
group is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from atlas.choice import seeded_hash
from atlas.config import SplitShares

_THUMBNAIL = 24
"""Side of a thumbnail in pixels."""


def assign_splits(strata: Mapping[str, str], shares: SplitShares, seed: int) -> dict[str, str]:
    """Returns the split of each group, with the same shares in every stratum.

    Groups are sorted by stratum and assigned in turn to the split that is furthest below its share. Assigning each at
    random would leave small strata without a dev or test group.

    Args:
        strata: Stratum by group.
        shares: Target shares.
        seed: Decides the order within a stratum.
    """
    share_of = {"train": shares.train, "dev": shares.dev, "test": shares.test}
    assigned = dict.fromkeys(share_of, 0)
    splits = {}
    order = sorted(strata, key=lambda group: (strata[group], seeded_hash(seed, "split", group)))
    for number, group in enumerate(order, start=1):
        deficit = {split: share * number - assigned[split] for split, share in share_of.items()}
        splits[group] = max(deficit, key=lambda split: deficit[split])
        assigned[splits[group]] += 1
    return splits


def thumbnail(image: Image.Image) -> np.ndarray:
    """Returns a flag as float32 [24 * 24 * 3] with values 0-255."""
    small = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def merge_lookalikes(names: Sequence[str], styles: Iterable[np.ndarray], limit: float) -> dict[str, str]:
    """Returns the group of each name: the first name that flags closer than `limit` in any style link it to.

    One style is enough: where two flags are drawn alike in one style, no model can tell those drawings apart.

    Args:
        names: Places, sorted.
        styles: Per drawing style, thumbnails [places, pixels].
        limit: Mean absolute difference per channel value.
    """
    # Row by row: all differences at once would take [places, places, pixels].
    by_style = [np.stack([np.abs(style - row).mean(axis=1) for row in style]) for style in styles]
    distances = np.min(by_style, axis=0)
    group = {name: name for name in names}
    for row, name in enumerate(names):
        for other in np.flatnonzero(distances[row, :row] < limit):
            old, new = group[name], group[names[int(other)]]
            group = {key: min(old, new) if value in (old, new) else value for key, value in group.items()}
    return group
