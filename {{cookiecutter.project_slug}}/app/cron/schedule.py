"""When a job is due. Time comes in as an argument, chance as a Random: tests patch nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

# What waits after a start or an outage is spread over this long at most, so that jobs and apps that
# come up together do not all work at once.
CATCH_UP_MAX = timedelta(seconds=10)

# Beyond this, due times would leave the calendar of `datetime`.
INTERVAL_MAX = timedelta(days=3660)


@runtime_checkable
class Schedule(Protocol):
    """All that the engine asks of a schedule. Times are aware UTC, whole microseconds."""

    @property
    def jitter(self) -> float:
        """The fraction by which a gap, or the wait before a retry, varies both ways."""

    @property
    def steady(self) -> bool:
        """True when gaps count, not times of day: a stepped wall clock moves no run."""

    def check(self) -> None:
        """Raise ValueError, naming the value and the rule, unless the schedule makes sense."""

    def first(self, now: datetime, random: Random) -> datetime:
        """When a job that has never run is due."""

    def next(self, after: datetime, random: Random) -> datetime:
        """When the job is due again that was claimed at `after`."""

    def catch_up(self, random: Random) -> timedelta:
        """How long a run waits that is found overdue, so that not all start together."""

    def period(self, at: datetime) -> timedelta:
        """The usual time between two runs."""

    def latest(self, now: datetime) -> datetime:
        """The last moment for which `next` could have chosen `now`: no due time may lie beyond."""

    def remark(self) -> str | None:
        """What its author might not expect, in a line for the log."""


def draw(low: timedelta, high: timedelta, random: Random) -> timedelta:
    """A duration between `low` and `high`, both included exactly."""
    return low + (high - low) * random.random()


@dataclass(frozen=True, slots=True)
class Every:
    """Start to start, `interval` times 1 - jitter to 1 + jitter."""

    amounts: dict[str, float]
    jitter: float
    steady = True

    @property
    def interval(self) -> timedelta:
        return timedelta(**self.amounts)

    def check(self) -> None:
        try:
            interval = self.interval
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self} is not a duration: {error}") from error
        if interval <= timedelta(0):
            raise ValueError(f"{self}: the interval must be positive, as in every(minutes=5)")
        if interval > INTERVAL_MAX:
            raise ValueError(f"{self}: the interval must be at most {INTERVAL_MAX.days} days")
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter < 1:
            raise ValueError(
                f"jitter={self.jitter!r}: jitter is a fraction; 0.1 means plus or minus 10 %"
            )

    def first(self, now: datetime, random: Random) -> datetime:
        return now + self.catch_up(random)

    def next(self, after: datetime, random: Random) -> datetime:
        low, high = self.interval * (1 - self.jitter), self.interval * (1 + self.jitter)
        return after + draw(low, high, random)

    def catch_up(self, random: Random) -> timedelta:
        return draw(timedelta(0), min(CATCH_UP_MAX, self.interval * self.jitter), random)

    def period(self, at: datetime) -> timedelta:
        return self.interval

    def latest(self, now: datetime) -> datetime:
        return now + self.interval * (1 + self.jitter)

    def remark(self) -> str | None:
        if self.interval < timedelta(days=1) or not self.jitter:
            return None
        hours = self.interval / timedelta(hours=1)
        low, high = hours * (1 - self.jitter), hours * (1 + self.jitter)
        advice = "; for once a calendar day use crontab('0 3 * * *')" if hours == 24 else ""
        return f"gaps of {low:.1f} to {high:.1f} hours{advice}"

    def __str__(self) -> str:
        return f"every({', '.join(f'{unit}={amount!r}' for unit, amount in self.amounts.items())})"


@dataclass(frozen=True, slots=True)
class Crontab:
    """At the times a crontab line names in a time zone, plus 0 to `splay`."""

    expression: str
    tz: str
    splay: timedelta
    jitter = 0.0
    steady = False

    def check(self) -> None:
        try:
            ZoneInfo(self.tz)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"tz={self.tz!r} is not a time zone, as 'Europe/Madrid' is") from error
        if not isinstance(self.splay, timedelta) or not timedelta(0) <= self.splay <= INTERVAL_MAX:
            raise ValueError(f"splay={self.splay!r} must be a timedelta of zero or more")
        try:
            if not isinstance(self.expression, str) or len(self.expression.split()) != 5:
                raise CronSimError("it needs five fields")  # cronsim takes six too, DST left out
            next(self._fires(datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            reason = str(error) or "it never fires"
            raise ValueError(
                f"crontab({self.expression!r}): {reason}; '0 3 * * *' is every day at three"
            ) from error

    def first(self, now: datetime, random: Random) -> datetime:
        return self.next(now, random)

    def next(self, after: datetime, random: Random) -> datetime:
        return next(self._fires(after)) + draw(timedelta(0), self.splay, random)

    def catch_up(self, random: Random) -> timedelta:
        return draw(timedelta(0), min(CATCH_UP_MAX, self.splay), random)

    def period(self, at: datetime) -> timedelta:
        one, two = islice(self._fires(at), 2)
        return two - one

    def latest(self, now: datetime) -> datetime:
        return next(self._fires(now)) + self.splay

    def remark(self) -> str | None:
        return None

    def _fires(self, after: datetime) -> Iterator[datetime]:
        """The times the expression names, later than `after`."""
        for fire in CronSim(self.expression, after.astimezone(ZoneInfo(self.tz))):
            # Inside the hour that a zone repeats in autumn, cronsim can answer with its first pass.
            if (utc := fire.astimezone(UTC)) > after:
                yield utc

    def __str__(self) -> str:
        zone = "" if self.tz == "UTC" else f", tz={self.tz!r}"
        return f"crontab({self.expression!r}{zone})"


def every(
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    jitter: float = 0.3,
) -> Schedule:
    """Run for ever: each gap, start to start, is 1 - jitter to 1 + jitter times the interval.

    `jitter` is a fraction, 0 or more and less than 1. The first run comes right after the start.
    """
    amounts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    given = {unit: amount for unit, amount in amounts.items() if amount} or {"seconds": 0}
    return Every(given, jitter)


def crontab(expression: str, *, tz: str = "UTC", splay: timedelta = timedelta(0)) -> Schedule:
    """Run at the times of a crontab line (minute, hour, day, month, weekday) in the zone `tz`, each
    plus a delay of 0 to `splay`. The first run waits for the first such time.

    On the two days a year when clocks change, a fixed hour and minute runs once.
    """
    return Crontab(expression, tz, splay)


def in_words(duration: timedelta) -> str:
    """A duration for people, in its two largest units: "4 min 51 s"."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    rest, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
