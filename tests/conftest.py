"""Which tests share a worker: those of a file, whose fixtures are then made once; files that name one group, too."""

from __future__ import annotations

import pytest


# Before xdist's own hook, which turns the marks that are there by then into groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}-{item.path.stem}"))
