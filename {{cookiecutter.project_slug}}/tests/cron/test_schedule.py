"""Schedules: time and chance are given to them, so each fact is one call."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.cron import crontab, every
from app.cron.due import Fixed
from app.cron.schedule import Schedule, draw, in_words

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # a Thursday
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)

durations = st.integers(0, 10**15).map(lambda count: count * MICROSECOND)
shares = st.floats(0, 1)


def refusal(schedule: Schedule) -> str:
    """What `check` says of a schedule that makes no sense. It is one line."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        schedule.check()
    return str(error.value)


# Chance


@given(one=durations, two=durations)
def test_the_least_draw_is_the_lower_bound(one: timedelta, two: timedelta) -> None:
    """To the microsecond."""
    low, high = sorted([one, two])
    assert draw(low, high, Fixed(0)) == low


@given(one=durations, two=durations)
def test_the_greatest_draw_is_the_upper_bound(one: timedelta, two: timedelta) -> None:
    """To the microsecond."""
    low, high = sorted([one, two])
    assert draw(low, high, Fixed(1)) == high


@given(one=durations, two=durations, share=shares)
def test_every_draw_is_within_the_bounds(one: timedelta, two: timedelta, share: float) -> None:
    """However close to one of them."""
    low, high = sorted([one, two])
    assert low <= draw(low, high, Fixed(share)) <= high


# every


def test_the_amounts_of_every_add_up() -> None:
    """Days, hours, minutes and seconds together are the interval."""
    schedule = every(days=1, hours=2, minutes=3, seconds=4)
    assert schedule.period(NOW) == timedelta(days=1, hours=2, minutes=3, seconds=4)


def test_an_amount_may_be_a_fraction() -> None:
    """A minute and a half is 90 seconds."""
    assert every(minutes=1.5).period(NOW) == 90 * SECOND


@pytest.mark.parametrize(("share", "minutes"), [(0, 30), (0.5, 60), (1, 90)])
def test_the_next_run_is_one_jittered_interval_away(share: float, minutes: int) -> None:
    """From 1 - jitter to 1 + jitter times the interval, after the start of this one."""
    gap = every(hours=1, jitter=0.5).next(NOW, Fixed(share)) - NOW
    assert gap == timedelta(minutes=minutes)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_without_jitter_the_gap_is_the_interval(share: float) -> None:
    """Whatever is drawn."""
    assert every(hours=1, jitter=0).next(NOW, Fixed(share)) == NOW + timedelta(hours=1)


def test_the_usual_jitter_is_three_tenths() -> None:
    """Of a job that says nothing about it."""
    assert every(minutes=5).jitter == 0.3


@pytest.mark.parametrize(("share", "seconds"), [(0, 0), (0.5, 1.5), (1, 3)])
def test_the_first_run_comes_within_the_jitter(share: float, seconds: float) -> None:
    """Of ten seconds with a jitter of 0.3, three: from at once to that is the catch-up delay."""
    assert every(seconds=10).first(NOW, Fixed(share)) == NOW + seconds * SECOND


@pytest.mark.parametrize(("share", "seconds"), [(0, 0), (0.5, 5), (1, 10)])
def test_the_first_run_comes_within_ten_seconds(share: float, seconds: float) -> None:
    """Though the jitter of a long interval is hours."""
    assert every(days=1).first(NOW, Fixed(share)) == NOW + seconds * SECOND


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_without_jitter_the_first_run_comes_at_once(share: float) -> None:
    """There is nothing to spread."""
    assert every(minutes=5, jitter=0).first(NOW, Fixed(share)) == NOW


@given(
    interval=st.integers(1, 10**14).map(lambda count: count * MICROSECOND),
    jitter=st.floats(0, 1, exclude_max=True),
    share=shares,
)
def test_no_next_run_is_later_than_the_latest(
    interval: timedelta, jitter: float, share: float
) -> None:
    """The greatest draw reaches it, none passes it."""
    schedule = every(seconds=interval.total_seconds(), jitter=jitter)
    assert schedule.next(NOW, Fixed(share)) <= schedule.latest(NOW)
    assert schedule.next(NOW, Fixed(1)) == schedule.latest(NOW)


def test_the_latest_is_measured_from_the_moment_given() -> None:
    """An interval and its jitter later."""
    assert every(hours=1, jitter=0.5).latest(NOW) == NOW + timedelta(minutes=90)


def test_a_job_that_counts_gaps_is_steady() -> None:
    """A step of the wall clock does not move it."""
    assert every(minutes=5).steady is True


@pytest.mark.parametrize(
    ("schedule", "remark"),
    [
        (
            every(days=1),
            "gaps of 16.8 to 31.2 hours; for once a calendar day use crontab('0 3 * * *')",
        ),
        (
            every(hours=24, jitter=0.5),
            "gaps of 12.0 to 36.0 hours; for once a calendar day use crontab('0 3 * * *')",
        ),
        (every(days=2), "gaps of 33.6 to 62.4 hours"),
        (every(hours=23, minutes=59), None),
        (every(days=1, jitter=0), None),
    ],
    ids=str,
)
def test_long_jittered_gaps_are_worth_a_remark(schedule: Schedule, remark: str | None) -> None:
    """Who writes `days=1` may have meant a time of day."""
    assert schedule.remark() == remark


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (every(minutes=5), "every(minutes=5)"),
        (every(minutes=5, jitter=0), "every(minutes=5)"),
        (every(days=1, seconds=0.5), "every(days=1, seconds=0.5)"),
        (crontab("0 3 * * *"), "crontab('0 3 * * *')"),
        (
            crontab("0 3 * * *", tz="Europe/Madrid", splay=SECOND),
            "crontab('0 3 * * *', tz='Europe/Madrid')",
        ),
    ],
    ids=str,
)
def test_a_schedule_reads_as_it_was_written(schedule: Schedule, text: str) -> None:
    """In the log, and wherever else it is shown."""
    assert str(schedule) == text


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({}, "every(seconds=0): the interval must be positive, as in every(minutes=5)"),
        ({"minutes": 0}, "every(seconds=0): the interval must be positive, as in every(minutes=5)"),
        (
            {"minutes": -5},
            "every(minutes=-5): the interval must be positive, as in every(minutes=5)",
        ),
        (
            {"minutes": 5, "seconds": -300},
            "every(minutes=5, seconds=-300): the interval must be positive, as in every(minutes=5)",
        ),
        ({"days": 3661}, "every(days=3661): the interval must be at most 3660 days"),
        ({"days": 1e20}, "every(days=1e+20) is not a duration: "),
        ({"minutes": float("nan")}, "every(minutes=nan) is not a duration: "),
        ({"minutes": float("inf")}, "every(minutes=inf) is not a duration: "),
        ({"minutes": "5"}, "every(minutes='5') is not a duration: "),
    ],
)
def test_an_interval_that_is_none_is_refused(amounts: dict[str, Any], message: str) -> None:
    """The message shows what was written, and what is wrong with it."""
    assert refusal(every(**amounts)).startswith(message)


@pytest.mark.parametrize("amount", [{"seconds": 0.000_001}, {"days": 3660}])
def test_any_interval_from_a_microsecond_to_ten_years_will_do(amount: dict[str, float]) -> None:
    """Both bounds included."""
    every(**amount).check()


@pytest.mark.parametrize("jitter", [1, 1.5, -0.1, float("nan"), float("inf"), "0.1", None])
def test_a_jitter_that_is_no_fraction_is_refused(jitter: Any) -> None:
    """The message shows it, and what is right: a whole interval of jitter would leave no gap."""
    remedy = "jitter is a fraction; 0.1 means plus or minus 10 %"
    assert refusal(every(minutes=5, jitter=jitter)) == f"jitter={jitter!r}: {remedy}"


@pytest.mark.parametrize("jitter", [0, 0.0, 0.1, 0.999])
def test_a_jitter_is_from_nothing_to_less_than_one(jitter: float) -> None:
    """Zero included."""
    every(minutes=5, jitter=jitter).check()


# crontab

EXPRESSIONS = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 */5 * * *",
    "15,45 1-3 * * 1-5",
    "0 0 L * *",
]
ZONES = [
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # its clocks change by half an hour
    "Pacific/Apia",  # it has skipped a day
]

# Some of the moments at which the clocks of these zones are changed, and any other ones.
CHANGES = [
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
]
SIX_HOURS, TEN_YEARS = 6 * 3600 * 10**6, 3653 * 86_400 * 10**6
moments = st.builds(
    lambda start, count: start + count * MICROSECOND,
    st.sampled_from(CHANGES),
    st.integers(-SIX_HOURS, SIX_HOURS) | st.integers(0, TEN_YEARS),
)


# Within the hour that Madrid repeats, cronsim answers with its first pass, which is over.
@example("30 2 * * *", "Europe/Madrid", datetime(2026, 10, 25, 1, 15, tzinfo=UTC))
@settings(deadline=None)
@given(expression=st.sampled_from(EXPRESSIONS), zone=st.sampled_from(ZONES), after=moments)
def test_the_next_fire_is_later(expression: str, zone: str, after: datetime) -> None:
    """Than the moment asked about, whatever the line, the zone and the moment."""
    assert crontab(expression, tz=zone).next(after, Fixed(0)) > after


@settings(deadline=None)
@given(expression=st.sampled_from(EXPRESSIONS), zone=st.sampled_from(ZONES), after=moments)
def test_no_fire_is_left_out(expression: str, zone: str, after: datetime) -> None:
    """A microsecond before the next fire, the next fire is still the same one."""
    schedule = crontab(expression, tz=zone)
    fire = schedule.next(after, Fixed(0))
    assert schedule.next(fire - MICROSECOND, Fixed(0)) == fire


@settings(deadline=None)
@given(expression=st.sampled_from(EXPRESSIONS), zone=st.sampled_from(ZONES), after=moments)
def test_a_fire_is_in_utc(expression: str, zone: str, after: datetime) -> None:
    """Whatever zone names it: the engine compares nothing else."""
    assert crontab(expression, tz=zone).next(after, Fixed(0)).tzinfo is UTC


@pytest.mark.parametrize(("share", "minutes"), [(0, 0), (0.5, 2.5), (1, 5)])
def test_a_crontab_is_due_at_a_fire_plus_some_splay(share: float, minutes: float) -> None:
    """From nothing to the whole of it."""
    schedule = crontab("0 3 * * *", splay=timedelta(minutes=5))
    fire = datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert schedule.next(NOW, Fixed(share)) == fire + timedelta(minutes=minutes)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_without_splay_a_crontab_is_due_at_the_fire(share: float) -> None:
    """Whatever is drawn."""
    assert crontab("0 13 * * *").next(NOW, Fixed(share)) == datetime(2026, 1, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize(("share", "minutes"), [(0, 0), (0.5, 2.5), (1, 5)])
def test_the_first_run_of_a_crontab_waits_for_the_first_fire(share: float, minutes: float) -> None:
    """With its splay: a start of the app is no time of day."""
    schedule = crontab("0 3 * * *", splay=timedelta(minutes=5))
    fire = datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert schedule.first(NOW, Fixed(share)) == fire + timedelta(minutes=minutes)


def test_a_run_at_its_fire_is_followed_by_the_next_fire() -> None:
    """Never by the same one again."""
    fire = datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert crontab("0 3 * * *").next(fire, Fixed(0)) == fire + DAY


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 3), ("Europe/Madrid", 2), ("Asia/Tokyo", 18)])
def test_a_crontab_names_times_of_its_zone(zone: str, hour: int) -> None:
    """Three in the morning is another hour in UTC for each."""
    fire = crontab("0 3 * * *", tz=zone).next(NOW, Fixed(0))
    assert fire.hour == hour
    assert fire.astimezone(ZoneInfo(zone)).hour == 3


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00", "03-31 00:00:00"]),
        ("0 0 LW * *", ["01-30 00:00:00", "02-27 00:00:00", "03-31 00:00:00"]),
        ("0 9 * * 1-5", ["01-02 09:00:00", "01-05 09:00:00", "01-06 09:00:00"]),
        ("0 9 * * MON#1", ["01-05 09:00:00", "02-02 09:00:00", "03-02 09:00:00"]),
    ],
)
def test_a_crontab_speaks_cronsim(expression: str, times: list[str]) -> None:
    """The last day, the last weekday, ranges, names, the nth weekday."""
    schedule, moment, fires = crontab(expression), NOW, []
    for _ in times:
        moment = schedule.next(moment, Fixed(0))
        fires.append(f"{moment:%m-%d %H:%M:%S}")
    assert fires == times


def test_a_day_of_leap_years_is_waited_for() -> None:
    """The 29th of February comes in 2028, then in 2032."""
    schedule = crontab("0 0 29 2 *")
    first = schedule.next(NOW, Fixed(0))
    assert first == datetime(2028, 2, 29, tzinfo=UTC)
    assert schedule.next(first, Fixed(0)) == datetime(2032, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "period"),
    [
        ("0 3 * * *", DAY),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 3 * * 5,1", 3 * DAY),  # from Friday to Monday
        ("0 0 29 2 *", 1461 * DAY),
    ],
)
def test_the_period_of_a_crontab_is_between_its_next_two_fires(
    expression: str, period: timedelta
) -> None:
    """It can be another one at another time."""
    assert crontab(expression, splay=timedelta(hours=1)).period(NOW) == period


def test_the_latest_of_a_crontab_is_its_next_fire_and_all_splay() -> None:
    """The greatest draw reaches it."""
    schedule = crontab("0 3 * * *", splay=timedelta(minutes=5))
    assert schedule.latest(NOW) == datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
    assert schedule.latest(NOW) == schedule.next(NOW, Fixed(1))


def test_a_crontab_follows_the_wall_clock() -> None:
    """It is not steady: times of day count, not gaps."""
    assert crontab("0 3 * * *").steady is False


def test_a_crontab_has_no_jitter() -> None:
    """Its splay only ever delays it."""
    assert crontab("0 3 * * *", splay=timedelta(minutes=5)).jitter == 0


def test_a_crontab_means_what_it_says() -> None:
    """Nothing needs to be remarked."""
    assert crontab("0 3 * * *").remark() is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "it needs five fields"),
        ("every day", "it needs five fields"),
        ("@daily", "it needs five fields"),
        ("* * * *", "it needs five fields"),
        ("61 * * * *", "Bad minute"),
        ("0 25 * * *", "Bad hour"),
        ("0 0 * * L", "Bad day-of-week"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("0 0 */30 2 MON#5", "it never fires"),  # the 1st or the 31st, and the fifth Monday
        ("0 30 2 * * *", "it needs five fields"),
        (None, "it needs five fields"),
        (5, "it needs five fields"),
        (b"0 3 * * *", "it needs five fields"),
    ],
)
def test_a_line_that_is_no_crontab_is_refused(expression: Any, reason: str) -> None:
    """The message shows it, says why, and gives one that is right."""
    message = f"crontab({expression!r}): {reason}; '0 3 * * *' is every day at three"
    assert refusal(crontab(expression)) == message


@pytest.mark.parametrize(
    "zone", ["Europe/Madird", "europe/madrid", "", "Europe", "../UTC", "/UTC", "a\0b", None, 5, []]
)
def test_a_zone_that_is_none_is_refused(zone: Any) -> None:
    """The message shows it, and one that is right."""
    message = f"tz={zone!r} is not a time zone, as 'Europe/Madrid' is"
    assert refusal(crontab("0 3 * * *", tz=zone)) == message


@pytest.mark.parametrize("splay", [-SECOND, -MICROSECOND, 5, "5", None])
def test_a_splay_that_is_no_delay_is_refused(splay: Any) -> None:
    """The message shows it, and what is right."""
    message = f"splay={splay!r} must be a timedelta of zero or more"
    assert refusal(crontab("0 3 * * *", splay=splay)) == message


def test_a_splay_of_more_than_ten_years_is_refused() -> None:
    """The message shows it: due times must stay within the calendar."""
    splay = timedelta(days=3661)
    assert refusal(crontab("0 3 * * *", splay=splay)).startswith(f"splay={splay!r} ")


@pytest.mark.parametrize(
    "schedule",
    [
        crontab("0 3 * * *"),
        crontab("0 3 * * *", splay=timedelta(days=3660)),
        crontab("0 0 29 2 *"),
        crontab("0 0 29 2 */7"),  # a Sunday: every 28 years
    ],
    ids=str,
)
def test_a_crontab_that_ever_fires_will_do(schedule: Schedule) -> None:
    """However rarely."""
    schedule.check()


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0.0 s"),
        (0, "0.0 s"),
        (4.25, "4.2 s"),
        (9.5, "9.5 s"),
        (10, "10 s"),
        (10.4, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (291, "4 min 51 s"),
        (3_600, "1 h"),
        (3_605, "1 h 5 s"),
        (5_025, "1 h 23 min"),
        (86_400, "1 d"),
        (1_000_000, "11 d 13 h"),
    ],
)
def test_a_duration_in_words_has_its_two_largest_units(seconds: float, words: str) -> None:
    """With tenths where it is short."""
    assert in_words(timedelta(seconds=seconds)) == words
