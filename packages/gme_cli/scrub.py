"""`gme scrub`: checks that all objects which the records name are in the DVC cache and the remote, and undamaged."""

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

    damage = audit(common.workspace, common.pipeline().release, repair=repair and not common.dry_run)
    if common.json:
        print_json({store: [asdict(damaged) for damaged in objects] for store, objects in damage.items()})
    else:
        for store, objects in damage.items():
            say(f"{store}: {f'{len(objects)} damaged or missing' if objects else 'sound'}")
            for damaged in objects:
                removed = ", removed" if repair and damaged.present and not common.dry_run else ""
                say(f"  {damaged.name}: {damaged.what}{removed}" if damaged.present else f"  {damaged.what}")
    return 1 if any(damage.values()) else 0
