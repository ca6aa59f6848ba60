"""The days on which a zone's clocks change: every minute of them, as the time of a daily job."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.cron import crontab
from app.cron.due import Fixed

NO_CHANCE = Fixed(0)

# Clocks go forward and back by an hour, on Lord Howe Island by half an hour.
DAYS = [
    ("Europe/Madrid", date(2026, 3, 29)),
    ("Europe/Madrid", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
]


def moments(day: date, minute: int, zone: ZoneInfo) -> list[datetime]:
    """When the zone's clocks show that time: once, twice, or not at all where they go forward."""
    shown = datetime.combine(day, time(minute // 60, minute % 60))
    candidates = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(
        moment for moment in candidates if moment.astimezone(zone).replace(tzinfo=None) == shown
    )


def next_shown(day: date, minute: int, zone: ZoneInfo) -> datetime:
    """The same or, if it is never shown, the first time after it that is."""
    while not (found := moments(day, minute, zone)):
        minute += 1
    return found[0]


@pytest.mark.parametrize(("name", "day"), DAYS)
def test_every_time_of_day_has_one_run_on_a_day_of_change(name: str, day: date) -> None:
    """A time that comes twice has its run the first time; one that is left out, right after it."""
    zone = ZoneInfo(name)
    midnight = datetime.combine(day, time(), zone).astimezone(UTC)
    tomorrow = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    for minute in range(24 * 60):
        schedule = crontab(f"{minute % 60} {minute // 60} * * *", tz=name)
        run = schedule.next(midnight - timedelta(microseconds=1), NO_CHANCE)
        assert run == next_shown(day, minute, zone)
        assert schedule.next(run, NO_CHANCE) >= tomorrow
        if moments(day, minute, zone) != [run]:
            for later in range(10, 70, 10):  # also from within the time that comes again
                assert schedule.next(run + timedelta(minutes=later), NO_CHANCE) >= tomorrow


def test_the_days_are_those_of_a_change() -> None:
    """Some of their times come twice, or never."""
    for name, day in DAYS:
        counts = {len(moments(day, minute, ZoneInfo(name))) for minute in range(24 * 60)}
        assert counts in ({0, 1}, {1, 2})
