"""Controls: the same task with something taken away, to see what a score rests on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gme_data.items import Item
from gme_data.tasks import Query
from umrb.data.sides import InMemorySide
from umrb.data.tasks import NumberedTask


def shuffle_pictures(task: NumberedTask, seed: int) -> NumberedTask | None:
    """The task with the pictures of its queries exchanged between entities; texts and judgements stay.

    A model that uses the picture falls to what the text alone gives.

    Returns:
        None if one entity owns more than half of the queries, so that some would have to keep their picture.
    """
    groups = [query.entity_group for query in task.queries]
    names = sorted(set(groups))
    place = dict(zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True))
    # Ordered by entity, moving everyone on by the largest entity's share takes each query out of its own entity.
    order = sorted(range(len(groups)), key=lambda row: (place[groups[row]], row))
    step = max(groups.count(name) for name in names)
    if 2 * step > len(groups):
        return None
    queries = list(task.queries)
    for position, row in enumerate(order):
        donor = task.queries[order[(position + step) % len(order)]]
        queries[row] = _with_picture_of(task.queries[row], donor)
    return replace(task, queries=InMemorySide(tuple(queries), task.queries.window([]).images))


def _with_picture_of(query: Query, donor: Query) -> Query:
    return replace(query, item=Item(query.item.text, donor.item.image))
