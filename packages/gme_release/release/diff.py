"""What differs between two releases: code, configuration, data, scores. Compares their records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gme_release.release.record import ReleaseRecord, release_id
from gme_release.tracking.run_metrics import flat_params


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `before` or `after` is None where a release lacks the field."""

    what: str
    before: Any
    after: Any


def diff_releases(before: ReleaseRecord, after: ReleaseRecord) -> list[Change]:
    """Returns every difference in the fields of `_compared_fields`, in that order; empty for the same release."""
    if release_id(before) == release_id(after):
        return []
    old, new = _compared_fields(before), _compared_fields(after)
    names = list(dict.fromkeys([*old, *new]))
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _compared_fields(record: ReleaseRecord) -> dict[str, Any]:
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
