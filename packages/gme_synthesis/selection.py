"""Steps 7 and 9, duplicates dropped and sources capped; and the demand that all task types are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.items import TASK_TYPES, Item
from gme_synthesis.records import Reject


def deduplicate(examples: Iterable[Example]) -> tuple[list[Example], list[Reject]]:
    """The first of all examples with equal task type, query, positive and negatives; the others as rejects."""
    seen: dict[tuple[str, Item, Item, tuple[Item, ...]], str] = {}
    kept: list[Example] = []
    rejects: list[Reject] = []
    for example in examples:
        content = (example.task_type, example.query, example.positive, example.negatives)
        if content in seen:
            rejects.append(Reject("deduplicate", "duplicate", example.id, f"as {seen[content]}: {said(example.query)}"))
            continue
        seen[content] = example.id
        kept.append(example)
    return kept, rejects


def balance(examples: Sequence[Example], caps: Mapping[str, int], seed: int) -> tuple[list[Example], list[Reject]]:
    """At most ``caps[source]`` examples of a source and task type; batch keys are served in turn, none is crowded out.

    Returns:
        The kept examples sorted by source, task type and id, and the others as rejects.
    """
    by_kind: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        by_kind.setdefault((example.source, example.task_type), []).append(example)
    kept: list[Example] = []
    rejects: list[Reject] = []
    for (source, _), members in sorted(by_kind.items()):
        ordered = _in_turn(members, seed)
        cap = caps.get(source, len(ordered))
        kept += sorted(ordered[:cap], key=lambda example: example.id)
        rejects += [Reject("balance", f"over-cap-{source}", e.id, said(e.query)) for e in ordered[cap:]]
    return kept, rejects


def _in_turn(examples: Sequence[Example], seed: int) -> list[Example]:
    """Round after round one example of each batch key, in an order that only the seed and the ids decide."""
    waiting: dict[str, int] = {}
    turns = []
    for example in sorted(examples, key=lambda one: sha256_json([seed, "balance", one.id])):
        turn = waiting.get(example.batch_key, 0)
        waiting[example.batch_key] = turn + 1
        turns.append((turn, example))
    return [example for _, example in sorted(turns, key=lambda pair: pair[0])]


def require_all_task_types(examples: Sequence[Example]) -> None:
    """Raise `FoundryError` if a task type has no example."""
    missing = [name for name in TASK_TYPES if name not in {example.task_type for example in examples}]
    if missing:
        raise FoundryError(
            f"The training set has no example of task type {', '.join(missing)}.",
            hint="Look at rejects/ and funnel.json for the step that dropped them, or rebuild the corpus.",
        )


def said(item: Item) -> str:
    """An item in a line, for a reject."""
    return item.text if item.text is not None else f"image {item.image}"
