"""`gme promote` and `gme rollback`: choose which registered version is the champion."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from gme_cli.options import Common, print_json, say, say_plan

if TYPE_CHECKING:
    from gme_release.registry.promotion import Promotion

_COMMON = Common()


def promote(version: str, /, *, common: Common = _COMMON) -> None:
    """Make a registered version the champion; the champion so far becomes the previous one.

    Parameters
    ----------
    version
        Number of the version, e.g. 3.
    """
    from gme_release.registry.promotion import promote as promote_version

    config = common.pipeline().release
    if common.dry_run:
        say_plan(f"Would make version {version} of {config.model_name} the champion.", json=common.json)
        return
    # With or without the v with which versions are printed.
    _print_promotion(promote_version(common.workspace, config, version.removeprefix("v")), common)


def rollback(*, common: Common = _COMMON) -> None:
    """Make the previous champion the champion again. A second call undoes it."""
    from gme_release.registry.promotion import roll_back

    config = common.pipeline().release
    if common.dry_run:
        say_plan(f"Would make the previous champion of {config.model_name} the champion again.", json=common.json)
        return
    _print_promotion(roll_back(common.workspace, config), common)


def _print_promotion(promotion: Promotion, common: Common) -> None:
    if common.json:
        print_json(asdict(promotion))
        return
    state = "is now" if promotion.changed else "was already"
    previous = f", previous is version {promotion.previous}" if promotion.previous else ""
    say(f"{promotion.name}: champion {state} version {promotion.champion}{previous}")
