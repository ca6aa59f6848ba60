"""The real clock, and the wall clock moved by time-machine."""

import sys
import time
from datetime import UTC, datetime, timedelta
from runpy import run_path
from zoneinfo import ZoneInfo

import pytest
import time_machine

from app.cron import clock as clock_module
from app.cron import crontab
from app.cron.clock import SystemClock, seeded
from app.cron.due import Fixed

MADRID = ZoneInfo("Europe/Madrid")
MOMENT = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_now_is_aware_and_in_utc() -> None:
    """Whatever zone the machine is in."""
    assert SystemClock().now().tzinfo is UTC


def test_now_follows_the_wall_clock() -> None:
    """When it is set, forwards or back, `now` shows it."""
    clock = SystemClock()
    with time_machine.travel(MOMENT, tick=False) as traveller:
        assert clock.now() == MOMENT
        traveller.shift(timedelta(hours=-1))
        assert clock.now() == MOMENT - timedelta(hours=1)


def test_now_is_utc_though_the_machine_is_elsewhere() -> None:
    """A machine in Madrid has the same `now` as any other."""
    with time_machine.travel(datetime(2026, 7, 1, 14, tzinfo=MADRID), tick=False):
        assert SystemClock().now() == MOMENT
        assert SystemClock().now().utcoffset() == timedelta(0)


def test_monotonic_does_not_follow_the_wall_clock() -> None:
    """A year's travel takes it less than a minute."""
    clock = SystemClock()
    before = clock.monotonic()
    with time_machine.travel(clock.now() + timedelta(days=365), tick=False):
        assert 0 <= clock.monotonic() - before < 60


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such clock")
def test_monotonic_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own stands still then: a lease would hold for ever."""
    monkeypatch.setattr("time.clock_gettime", {time.CLOCK_BOOTTIME: 3_600.0}.__getitem__)
    assert SystemClock().monotonic() == 3_600


def test_where_no_clock_goes_on_monotonic_is_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and on Windows."""
    monkeypatch.delattr("time.CLOCK_BOOTTIME", raising=False)
    clock = run_path(clock_module.__file__)["SystemClock"]()
    monkeypatch.setattr("time.monotonic", lambda: 3_600.0)
    assert clock.monotonic() == 3_600


async def test_a_sleep_ends_soon_after_the_machine_has_slept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Suspended for an hour, it has a second to wait at most: a lease may be over by now."""
    sleeps, times = list[float](), iter([0.0, 1.0, 3_601.0])
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: next(times))

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    await SystemClock().sleep(10)
    assert sleeps == [1, 1]


async def test_a_sleep_takes_as_long_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second at a time, and the rest."""
    sleeps = list[float]()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: sum(sleeps))

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    await SystemClock().sleep(2.5)
    assert sleeps == [1, 1, 0.5]


async def test_a_timeout_expires() -> None:
    """What takes longer raises TimeoutError."""
    clock = SystemClock()
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await clock.sleep(60)


async def test_a_timeout_of_none_does_not_expire() -> None:
    """It is for what may take for ever."""
    async with SystemClock().timeout(None) as timeout:
        await SystemClock().sleep(0)
    assert not timeout.expired()


def fires(
    expression: str, first: datetime, days: float = 1, tz: str = "Europe/Madrid"
) -> list[str]:
    """The local times at which a crontab fires within so many days from `first`."""
    schedule, moment, zone = crontab(expression, tz=tz), first.astimezone(UTC), ZoneInfo(tz)
    end, times = moment + timedelta(days=days), []
    while (moment := schedule.next(moment, Fixed(0))) < end:
        times.append(f"{moment.astimezone(zone):%d %H:%M%z}")
    return times


SPRING = datetime(2026, 3, 29, tzinfo=MADRID)  # at 2:00 it is 3:00
AUTUMN = datetime(2026, 10, 25, tzinfo=MADRID)  # at 3:00 it is 2:00 again


def test_an_hour_that_is_skipped_in_spring_still_has_its_run() -> None:
    """A crontab of 2:30 fires once on the day that has no 2:30."""
    assert len(fires("30 2 * * *", SPRING)) == 1


def test_an_hour_that_is_repeated_in_autumn_has_one_run() -> None:
    """A crontab of 2:30 fires once on the day that has two."""
    assert len(fires("30 2 * * *", AUTUMN)) == 1


def test_a_fire_is_never_in_the_past() -> None:
    """Not even from within the repeated hour."""
    schedule, moment = crontab("30 2 * * *", tz="Europe/Madrid"), AUTUMN.astimezone(UTC)
    for minute in range(24 * 60):
        after = moment + timedelta(minutes=minute)
        assert schedule.next(after, Fixed(0)) > after


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), (AUTUMN, 25)])
def test_every_hour_means_every_hour_that_passes(day: datetime, hours: int) -> None:
    """A star counts real hours: 23 in spring, 25 in autumn, the midnight before left out."""
    end = (day + timedelta(days=1)).astimezone(UTC) - day.astimezone(UTC)
    assert len(fires("0 * * * *", day, days=end / timedelta(days=1))) == hours - 1


def test_a_fixed_time_stays_the_local_time() -> None:
    """Three in the morning in Madrid is another hour in UTC before and after the change."""
    times = fires("0 3 * * *", SPRING - timedelta(days=2), days=4)
    assert times == ["27 03:00+0100", "28 03:00+0100", "29 03:00+0200", "30 03:00+0200"]


def test_the_same_seed_and_key_draw_the_same() -> None:
    """In every process and after every restart: nothing depends on Python's own hash seed."""
    assert seeded("one")("tick:1:gap").random() == 0.11145929565812618


def test_without_a_seed_each_source_is_its_own() -> None:
    """The operating system has chosen."""
    assert seeded(None)("tick:1:gap").random() != seeded(None)("tick:1:gap").random()
