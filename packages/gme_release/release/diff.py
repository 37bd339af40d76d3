"""What differs between two releases: code, configuration, data, scores. Compares records; judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gme_release.records import flat_params
from gme_release.release.record import ReleaseRecord, release_id


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; None where one of the two has nothing."""

    what: str
    before: Any
    after: Any


def diff_releases(before: ReleaseRecord, after: ReleaseRecord) -> list[Change]:
    """Every difference in what matters, in a fixed order; empty for the same release."""
    if release_id(before) == release_id(after):
        return []
    old, new = _facts(before), _facts(after)
    names = list(dict.fromkeys([*old, *new]))
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _facts(record: ReleaseRecord) -> dict[str, Any]:
    return {
        "release": f"{record.name} {record.tag}",
        "model": record.model,
        "licence": record.licence,
        "commit": record.source.commit,
        "lock": record.source.lock,
        **{f"config/{name}": value for name, value in flat_params(record.config).items()},
        **{f"data/{dataset.path}": dataset.content for dataset in record.datasets},
        **{f"licences/{dataset.path}": list(dataset.licences) for dataset in record.datasets},
        **{f"environment/{name}": value for name, value in record.environment.items()},
        **{f"instruction/{name}": value for name, value in record.instructions.items()},
        "evaluation": record.evaluation,
        "score/overall": record.overall,
        **{f"score/{name}": value for name, value in record.types.items()},
        **{f"score/{task.name}": task.value for task in record.tasks},
    }
