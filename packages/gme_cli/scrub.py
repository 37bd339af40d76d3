"""`gme scrub`: hash every object of the DVC cache and of the remote again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from gme_cli.options import Common, print_json, say

_COMMON = Common()


def scrub(*, repair: Annotated[bool, Parameter(negative="")] = False, common: Common = _COMMON) -> int:
    """Hash every object of the DVC cache and of the remote; exit with 1 if one is damaged or missing.

    Parameters
    ----------
    repair
        Remove what is damaged. The next `gme pipeline` or `gme register` adds and pushes it anew.
    """
    from gme_release.audit import audit

    found = audit(common.workspace, common.pipeline().release, repair=repair and not common.dry_run)
    if common.json:
        print_json({place: [asdict(one) for one in damage] for place, damage in found.items()})
    else:
        for place, damage in found.items():
            say(f"{place}: {f'{len(damage)} damaged' if damage else 'sound'}")
            for one in damage:
                say(f"  {one.name}: {one.what}{', removed' if repair and not common.dry_run else ''}")
    return 1 if any(found.values()) else 0
