"""The provenance of a model: the configuration of its steps by their manifests, which may differ from the present.

Pure: reads facts, returns facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gme_data.errors import FoundryError
from gme_release.run_facts import RunFacts
from gme_release.tracking.run_metrics import flat_params


def with_used_config(facts: RunFacts) -> tuple[RunFacts, list[str]]:
    """Returns facts with the configuration that each step was made with, and how the present one differs from it.

    Raises:
        FoundryError: The model was made from other outputs than lie in the workspace.
    """
    require_lineage(facts)
    used: dict[str, Any] = dict(facts.config)
    differences: list[str] = []
    for step, manifest in facts.manifests.items():
        section = facts.sections.get(step)
        if section is None:
            continue
        *parents, last = section.split(".")
        mapping = used
        for name in parents:
            mapping[name] = dict(mapping.get(name) or {})  # a copy: the configuration of `facts` must not change
            mapping = mapping[name]
        differences += _differences(section, mapping.get(last), manifest.config)
        mapping[last] = manifest.config
    return replace(facts, config=used), differences


def require_lineage(facts: RunFacts) -> None:
    """Checks that the model was made from the present outputs of its steps, and each of these from the others.

    Raises:
        FoundryError: An output was made from another one than lies there now.
    """
    pending, visited = [facts.model_step], set()
    while pending:
        step = pending.pop()
        if step in visited or step not in facts.manifests:
            continue
        visited.add(step)
        for name, source in facts.sources.get(step, {}).items():
            input_digest = facts.manifests[step].inputs.get(name)
            if source in facts.manifests and input_digest != facts.manifests[source].content:
                raise FoundryError(
                    f"{facts.folder(step)} was made from another {facts.folder(source)} than lies there now "
                    f"({(input_digest or 'none')[:12]}, found {facts.manifests[source].content[:12]}).",
                    hint="Run `gme pipeline`: it makes what depends on the new one again, and registers that.",
                )
            pending.append(source)


def _differences(section: str, present: Any, used: dict[str, Any]) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    present_params = flat_params(present if isinstance(present, dict) else {}, f"{section}.")
    used_params = flat_params(used, f"{section}.")
    for name in sorted({*present_params, *used_params}):
        if present_params.get(name) != used_params.get(name):
            before, now = used_params.get(name, "not set"), present_params.get(name, "nothing")
            yield f"{name} was {before}, the config says {now}"
