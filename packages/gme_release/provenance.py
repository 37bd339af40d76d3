"""What made a model, told by the manifests: of its configuration the part that was used, whatever is asked for now.

Pure: reads facts, returns facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gme_data.errors import FoundryError
from gme_release.records import RunFacts, flat_params


def with_used_config(facts: RunFacts) -> tuple[RunFacts, list[str]]:
    """Facts whose configuration is what each step was made with, and where the one at hand says something else.

    Raises:
        FoundryError: The model was made from other outputs than lie in the workspace, so nothing says how these came
            about.
    """
    require_lineage(facts)
    used: dict[str, Any] = dict(facts.config)
    differences: list[str] = []
    for step, manifest in facts.manifests.items():
        section = facts.sections.get(step)
        if section is None:
            continue
        *way, last = section.split(".")
        place = used
        for name in way:
            place[name] = dict(place.get(name) or {})  # the facts' own stay as they are
            place = place[name]
        differences += _differences(section, place.get(last), manifest.config)
        place[last] = manifest.config
    return replace(facts, config=used), differences


def require_lineage(facts: RunFacts) -> None:
    """See that the model was made from just these outputs, and they from each other.

    Raises:
        FoundryError: One was not; names the two steps.
    """
    todo, seen = [facts.model_step], set()
    while todo:
        step = todo.pop()
        if step in seen or step not in facts.manifests:
            continue
        seen.add(step)
        for name, source in facts.sources.get(step, {}).items():
            made_from = facts.manifests[step].inputs.get(name)
            if source in facts.manifests and made_from != facts.manifests[source].content:
                raise FoundryError(
                    f"{facts.folder(step)} was made from another {facts.folder(source)} than lies there now "
                    f"({(made_from or 'none')[:12]}, found {facts.manifests[source].content[:12]}).",
                    hint="Run `gme pipeline`: it makes what depends on the new one again, and registers that.",
                )
            todo.append(source)


def _differences(section: str, asked: Any, used: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    now = flat_params(asked if isinstance(asked, dict) else {}, f"{section}.")
    then = flat_params(used, f"{section}.")
    for name in sorted({*now, *then}):
        if now.get(name) != then.get(name):
            yield f"{name} was {then.get(name, 'not set')}, the config says {now.get(name, 'nothing')}"
