"""`gme scrub`: is all that the records name in the DVC cache and the remote, and undamaged?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from gme_cli.options import Common, print_json, say

_COMMON = Common()


def scrub(*, repair: Annotated[bool, Parameter(negative="")] = False, common: Common = _COMMON) -> int:
    """Look in the DVC cache and the remote for all that the workspace's records name, and hash every object there.

    Records are the pointers (data.dvc), the registered versions and the releases in dist/. Exits with 1 if an object is
    damaged or missing, with 2 if there is no pointer and so nothing to check.

    Parameters
    ----------
    repair
        Remove what is damaged. The next `gme pipeline` or `gme register` adds and pushes it anew, and what is missing.
    """
    from gme_release.release.audit import audit

    found = audit(common.workspace, common.pipeline().release, repair=repair and not common.dry_run)
    if common.json:
        print_json({place: [asdict(one) for one in damage] for place, damage in found.items()})
    else:
        for place, damage in found.items():
            say(f"{place}: {f'{len(damage)} damaged or missing' if damage else 'sound'}")
            for one in damage:
                done = ", removed" if repair and one.present and not common.dry_run else ""
                say(f"  {one.name}: {one.what}{done}" if one.present else f"  {one.what}")
    return 1 if any(found.values()) else 0
