"""The slots of a schedule, which is a cron expression in a time zone. Knows no records and no orchestrator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from gme_data.settings import Frozen


class Schedule(Frozen):
    """When a pipeline is due. With daylight saving time, a local time in the changed hour is skipped or shifted."""

    cron: str = "0 3 * * 1"
    """Five fields: minute, hour, day of month, month, day of week."""
    time_zone: str = Field(default="UTC", validate_default=True)
    """Name in the IANA data base, such as Europe/Berlin."""

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, value: str) -> str:
        try:
            CronSim(value, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"not a cron expression: {error}") from error
        # CronSim takes a sixth field for seconds, which Prefect's schedules don't have.
        if len(value.split()) != len(("minute", "hour", "day", "month", "weekday")):
            raise ValueError("expected five fields, such as '0 3 * * 1'")
        return value

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"no time zone is named '{value}'") from error
        return value

    def newest(self, now: datetime) -> datetime:
        """Returns the last slot that is due at `now`, in UTC."""
        local = now.astimezone(ZoneInfo(self.time_zone)).replace(microsecond=0)
        # CronSim's reverse search excludes the moment from which it starts, but a slot at `now` is due.
        return next(CronSim(self.cron, local + timedelta(seconds=1), reverse=True)).astimezone(UTC)

    def between(self, after: datetime, before: datetime) -> Iterator[datetime]:
        """Yields the slots later than `after` and earlier than `before`, oldest first, in UTC."""
        slots = CronSim(self.cron, after.astimezone(ZoneInfo(self.time_zone)))
        return takewhile(lambda slot: slot < before, (slot.astimezone(UTC) for slot in slots))
