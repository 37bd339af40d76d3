"""The training set in memory: every distinct item once, examples as rows of numbers.

Two items are one if their text and picture are equal, so that nothing is encoded twice in a batch and no copy of a
positive is taken for a negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gme_data.examples import Example
from gme_data.items import Item

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Catalog:
    """Examples by number; items by number.

    Attributes:
        examples: In the order of the data set.
        items: Distinct items.
        query: [n] item of each example's query.
        positive: [n] item of its positive.
        negatives: Items of its hard negatives.
        group: [n] number of its entity group.
        key: [n] number of its batch key.
        rows_of_source: Examples of each source, ascending.
        task_types: [n] task type of each example.
        known: For each query item, all items marked as its positive anywhere in the set.
        alike: For each pair of group and key, the positives of its examples.
    """

    examples: tuple[Example, ...]
    items: tuple[Item, ...]
    query: Ints
    positive: Ints
    negatives: tuple[tuple[int, ...], ...]
    group: Ints
    key: Ints
    rows_of_source: dict[str, Ints]
    task_types: NDArray[np.str_]
    known: dict[int, frozenset[int]]
    alike: dict[tuple[int, int], frozenset[int]]


def build_catalog(examples: Sequence[Example]) -> Catalog:
    """Number the items, groups and keys of `examples` in the order in which they are met."""
    items: dict[Item, int] = {}
    groups: dict[str, int] = {}
    keys: dict[tuple[str, str], int] = {}

    def number(item: Item) -> int:
        return items.setdefault(item, len(items))

    query = np.array([number(example.query) for example in examples], dtype=np.int64)
    positive = np.array([number(example.positive) for example in examples], dtype=np.int64)
    negatives = tuple(tuple(number(item) for item in example.negatives) for example in examples)
    group = np.array([groups.setdefault(e.entity_group, len(groups)) for e in examples], dtype=np.int64)
    key = np.array([keys.setdefault((e.source, e.batch_key), len(keys)) for e in examples], dtype=np.int64)
    known: defaultdict[int, set[int]] = defaultdict(set)
    alike: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for q, p, g, k in zip(query.tolist(), positive.tolist(), group.tolist(), key.tolist(), strict=True):
        known[q].add(p)
        alike[g, k].add(p)
    return Catalog(
        examples=tuple(examples),
        items=tuple(items),
        query=query,
        positive=positive,
        negatives=negatives,
        group=group,
        key=key,
        rows_of_source=_rows_of_source(examples),
        task_types=np.array([example.task_type for example in examples]),
        known={q: frozenset(found) for q, found in known.items()},
        alike={pair: frozenset(found) for pair, found in alike.items()},
    )


def rows_of_share(
    catalog: Catalog, source: str, task_type: str | None = None, *, only_with_negatives: bool = False
) -> Ints:
    """Examples of a source, ascending; of one task type, or only those that have hard negatives, where asked for."""
    rows = catalog.rows_of_source[source]
    if task_type is not None:
        rows = rows[catalog.task_types[rows] == task_type]
    if only_with_negatives:
        rows = rows[np.array([bool(catalog.negatives[row]) for row in rows.tolist()], dtype=np.bool_)]
    return rows


def false_negatives(catalog: Catalog, row: int, *, mask_same_group: bool) -> frozenset[int]:
    """Items that must not be negatives of example `row`; its own positive is among them.

    They are the known positives of the same query, the query's own item, and, if `mask_same_group`, the positives of
    other examples of the same entity group and batch key: the same fact of a look-alike.
    """
    query = int(catalog.query[row])
    found = catalog.known[query] | {query}
    if mask_same_group:
        found |= catalog.alike[int(catalog.group[row]), int(catalog.key[row])]
    return found


def _rows_of_source(examples: Sequence[Example]) -> dict[str, Ints]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.source].append(row)
    return {source: np.array(found, dtype=np.int64) for source, found in sorted(rows.items())}
