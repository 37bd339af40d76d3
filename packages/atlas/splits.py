"""Entity groups and which split each belongs to.

A group is what must stay together: flags that look alike, pictographs of one name family. Nothing about a test group is
trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from atlas.choice import rank
from atlas.config import SplitShares

_THUMBNAIL = 24


def assign_splits(strata: Mapping[str, str], shares: SplitShares, seed: int) -> dict[str, str]:
    """Split of each group, with the same shares in every stratum.

    Groups are laid out stratum by stratum and dealt in turn to the split that is furthest behind its share.

    Args:
        strata: Stratum by group.
        shares: Target shares.
        seed: Decides the order within a stratum.
    """
    wanted = {"train": shares.train, "dev": shares.dev, "test": shares.test}
    dealt = dict.fromkeys(wanted, 0)
    splits = {}
    order = sorted(strata, key=lambda group: (strata[group], rank(seed, "split", group)))
    for number, group in enumerate(order, start=1):
        behind = {split: share * number - dealt[split] for split, share in wanted.items()}
        splits[group] = max(behind, key=lambda split: behind[split])
        dealt[splits[group]] += 1
    return splits


def thumbnail(image: Image.Image) -> np.ndarray:
    """A flag as float32 [24 * 24 * 3], 0-255."""
    small = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def merge_lookalikes(names: Sequence[str], styles: Iterable[np.ndarray], limit: float) -> dict[str, str]:
    """Group of each name: the first name it is linked to by flags closer than `limit` in any style.

    One style is enough: where two flags are drawn alike once, no reader of that drawing can tell them apart.

    Args:
        names: Places, sorted.
        styles: Per drawing style, thumbnails [places, pixels].
        limit: Mean absolute difference per channel value.
    """
    distances = np.min([_pairwise(style) for style in styles], axis=0)
    group = {name: name for name in names}
    for row, name in enumerate(names):
        for other in np.flatnonzero(distances[row, :row] < limit):
            old, new = group[name], group[names[int(other)]]
            group = {key: min(old, new) if value in (old, new) else value for key, value in group.items()}
    return group


def _pairwise(thumbnails: np.ndarray) -> np.ndarray:
    """Mean absolute differences [places, places], row by row to stay small in memory."""
    return np.stack([np.abs(thumbnails - row).mean(axis=1) for row in thumbnails])
