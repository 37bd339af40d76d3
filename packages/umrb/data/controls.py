"""Controls: a task without one of its signals, to see what a score rests on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gme_data.items import Item
from umrb.data.sides import InMemorySide
from umrb.data.tasks import NumberedTask


def shuffle_pictures(task: NumberedTask, seed: int) -> NumberedTask | None:
    """Exchange the pictures of a task's queries between entities; texts and judgements stay.

    The score of a model that relies on the picture falls to what the text alone gives.

    Returns:
        None if one entity owns more than half of the queries, so that some would have to keep their picture.
    """
    groups = [query.entity_group for query in task.queries]
    names = sorted(set(groups))
    shuffled_rank = dict(zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True))
    # With queries ordered by entity, a shift by the size of the largest entity takes each query out of its own entity.
    order = sorted(range(len(groups)), key=lambda row: (shuffled_rank[groups[row]], row))
    step = max(groups.count(name) for name in names)
    # The shift would bring some queries of that entity back to it.
    if 2 * step > len(groups):
        return None
    queries = list(task.queries)
    for position, row in enumerate(order):
        donor = task.queries[order[(position + step) % len(order)]]
        query = task.queries[row]
        queries[row] = replace(query, item=Item(query.item.text, donor.item.image))
    return replace(task, queries=InMemorySide(tuple(queries), task.queries.window([]).images))
