"""`gme promote` and `gme rollback`: which registered version is in use."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from gme_cli.options import Common, print_json, say

if TYPE_CHECKING:
    from gme_release.registry.promotion import Promotion

_COMMON = Common()


def promote(version: str, /, *, common: Common = _COMMON) -> None:
    """Make a registered version the champion; the champion so far becomes the previous one.

    Parameters
    ----------
    version
        Its number, e.g. 3.
    """
    from gme_release.registry.promotion import promote as promote_version

    config = common.pipeline().release
    if common.dry_run:
        say(f"Would make version {version} of {config.model_name} the champion.")
        return
    _tell(promote_version(common.workspace, config, version.removeprefix("v")), common)


def rollback(*, common: Common = _COMMON) -> None:
    """Make the previous champion the champion again. A second call undoes it."""
    from gme_release.registry.promotion import roll_back

    config = common.pipeline().release
    if common.dry_run:
        say(f"Would make the previous champion of {config.model_name} the champion again.")
        return
    _tell(roll_back(common.workspace, config), common)


def _tell(moved: Promotion, common: Common) -> None:
    if common.json:
        print_json(asdict(moved))
        return
    before = f", previous is version {moved.previous}" if moved.previous else ""
    say(f"{moved.name}: champion {'is now' if moved.changed else 'was already'} version {moved.champion}{before}")
