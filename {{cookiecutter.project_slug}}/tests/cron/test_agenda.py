"""The agenda: what is due next, and what is gathered with it."""

from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.cron.agenda import MICROSECOND, Agenda
from support import FakeClock

WINDOW = timedelta(milliseconds=50)
FAR = 10**12  # a limit that nothing here reaches


def always(name: str) -> bool:
    """Whatever is due may start."""
    return True


def never(name: str) -> bool:
    """Nothing may start."""
    return False


def due(agenda: Agenda) -> list[str]:
    """The names of what is due, and it is taken."""
    return [name for _, name in agenda.take_due(always)]


@pytest.fixture
def agenda(clock: FakeClock) -> Agenda:
    """An empty one that gathers for 50 ms."""
    return Agenda(clock, WINDOW)


# What is due


async def test_nothing_is_due_early(agenda: Agenda, clock: FakeClock) -> None:
    """Not by a microsecond."""
    agenda.add("tick", timedelta(seconds=5))
    await clock.advance(timedelta(seconds=5) - MICROSECOND)
    assert due(agenda) == []


async def test_what_is_due_is_due_at_its_moment(agenda: Agenda, clock: FakeClock) -> None:
    """To the microsecond."""
    agenda.add("tick", timedelta(seconds=5))
    await clock.advance(seconds=5)
    assert due(agenda) == ["tick"]


@settings(deadline=None)
@example(start=0, delay=249)  # 0.000249 * 1_000_000 is a little less than 249
@example(start=0, delay=124)  # 0.000123 * 1_000_000 is a little more than 123
@given(
    start=st.integers(0, 10**15),  # a machine that has been up for 30 years
    delay=st.integers(1, 10**14),
)
async def test_a_delay_is_kept_to_the_microsecond(start: int, delay: int) -> None:
    """Though the clock counts seconds in floating point: no rounding makes it early or late."""
    with FakeClock() as clock:
        await clock.advance(start * MICROSECOND)
        agenda = Agenda(clock, WINDOW)
        agenda.add("tick", delay * MICROSECOND)
        await clock.advance((delay - 1) * MICROSECOND)
        assert due(agenda) == []
        await clock.advance(MICROSECOND)
        assert due(agenda) == ["tick"]


async def test_what_is_overdue_is_due(agenda: Agenda) -> None:
    """A delay can be negative: then it lies in the past."""
    agenda.add("tick", timedelta(seconds=-5))
    assert due(agenda) == ["tick"]


async def test_what_is_taken_is_gone(agenda: Agenda) -> None:
    """Until it is added again."""
    agenda.add("tick", timedelta(0))
    assert due(agenda) == ["tick"]
    assert due(agenda) == []


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
async def test_the_earliest_comes_first(
    agenda: Agenda, clock: FakeClock, order: tuple[int, ...]
) -> None:
    """In whatever order they were added."""
    for seconds in order:
        agenda.add(f"job {9 - seconds}", timedelta(seconds=seconds))
    await clock.advance(seconds=3)
    assert due(agenda) == ["job 8", "job 7", "job 6"]


async def test_what_is_due_at_the_same_moment_goes_by_name(agenda: Agenda) -> None:
    """So that what a seed has decided happens again."""
    for name in "bca":
        agenda.add(name, timedelta(0))
    assert due(agenda) == ["a", "b", "c"]


async def test_what_is_due_later_is_left(agenda: Agenda, clock: FakeClock) -> None:
    """Only what is due is taken."""
    agenda.add("one", timedelta(seconds=1))
    agenda.add("two", timedelta(seconds=2))
    await clock.advance(seconds=1)
    assert due(agenda) == ["one"]
    assert agenda.next() == ("two", timedelta(seconds=1))


# What is next


async def test_the_next_is_the_earliest_and_in_how_long(agenda: Agenda, clock: FakeClock) -> None:
    """It is only shown, not taken."""
    agenda.add("late", timedelta(seconds=9))
    agenda.add("soon", timedelta(seconds=5))
    await clock.advance(seconds=2)
    assert agenda.next() == ("soon", timedelta(seconds=3))
    assert agenda.next() == ("soon", timedelta(seconds=3))


async def test_what_is_overdue_is_next_at_once(agenda: Agenda, clock: FakeClock) -> None:
    """Not before now."""
    agenda.add("tick", timedelta(seconds=1))
    await clock.advance(seconds=5)
    assert agenda.next() == ("tick", timedelta(0))


async def test_an_empty_agenda_has_no_next(agenda: Agenda) -> None:
    """Nobody waits for anything."""
    assert agenda.next() is None


async def test_what_was_taken_can_be_put_back(agenda: Agenda, clock: FakeClock) -> None:
    """It is as due as before, not as due as now."""
    agenda.add("second", timedelta(seconds=2))
    agenda.add("first", timedelta(seconds=1))
    await clock.advance(seconds=3)
    taken = agenda.take_due(always)
    agenda.add("third", timedelta(0))
    agenda.put_back(taken)
    assert due(agenda) == ["first", "second", "third"]


async def test_what_is_left_keeps_its_order(agenda: Agenda, clock: FakeClock) -> None:
    """The earliest is next, whichever are dropped before it."""
    for seconds in (1, 5, 2, 6, 7, 3, 4):
        agenda.add(f"{seconds}", timedelta(seconds=seconds))
    agenda.drop({"1", "2"})
    assert agenda.next() == ("3", timedelta(seconds=3))
    await clock.advance(seconds=7)
    assert due(agenda) == ["3", "4", "5", "6", "7"]


async def test_what_is_dropped_is_not_due_any_more(agenda: Agenda) -> None:
    """Whether it was due or waited; the others stay as they are."""
    for name in ("waits", "waits too"):
        agenda.add(name, timedelta(0))
    agenda.take_due(never)
    for name in ("is due", "is due too"):
        agenda.add(name, timedelta(0))
    agenda.drop({"waits", "is due"})
    agenda.retry_waiting()
    assert due(agenda) == ["is due too", "waits too"]


async def test_an_agenda_tells_in_how_long_each_is_due(agenda: Agenda, clock: FakeClock) -> None:
    """What waits too: less than nothing, since it is overdue."""
    agenda.add("waits", timedelta(0))
    agenda.take_due(never)
    agenda.add("later", timedelta(seconds=5))
    await clock.advance(seconds=2)
    expected = {"waits": timedelta(seconds=-2), "later": timedelta(seconds=3)}
    assert agenda.delays() == expected


# What may not start yet


async def test_each_that_is_due_is_asked_whether_it_may_start(agenda: Agenda) -> None:
    """The earliest first, and one that may not keeps no other back."""
    for name in "abc":
        agenda.add(name, timedelta(0))
    taken = agenda.take_due(lambda name: name != "a")
    assert [name for _, name in taken] == ["b", "c"]


async def test_what_may_not_start_waits(agenda: Agenda) -> None:
    """It is not due again by itself: nobody asks for it in a circle."""
    agenda.add("tick", timedelta(0))
    agenda.take_due(never)
    assert due(agenda) == []
    assert agenda.next() is None


async def test_what_waits_is_due_again_when_it_is_retried(agenda: Agenda, clock: FakeClock) -> None:
    """Before what has fallen due meanwhile."""
    agenda.add("waits", timedelta(0))
    agenda.take_due(never)
    await clock.advance(seconds=1)
    agenda.add("falls due", timedelta(0))
    agenda.retry_waiting()
    assert due(agenda) == ["waits", "falls due"]


async def test_what_waits_is_retried_once(agenda: Agenda) -> None:
    """It is in the agenda no more often than before."""
    agenda.add("tick", timedelta(0))
    agenda.take_due(never)
    agenda.retry_waiting()
    agenda.retry_waiting()
    assert due(agenda) == ["tick"]


# When to wake


async def test_a_lone_job_is_not_delayed(agenda: Agenda) -> None:
    """Nothing else is due soon enough after it to wait for."""
    agenda.add("tick", timedelta(seconds=1))
    agenda.add("tock", timedelta(seconds=1) + WINDOW + MICROSECOND)
    assert agenda.wake_at(FAR) == 1_000_000


@pytest.mark.parametrize("order", list(permutations(["first", "second", "third"])))
@pytest.mark.parametrize("gap", [timedelta(0), MICROSECOND, WINDOW])
async def test_what_falls_due_within_the_window_is_gathered(
    agenda: Agenda, clock: FakeClock, order: tuple[str, ...], gap: timedelta
) -> None:
    """The first waits for the second until the window ends, which belongs to it."""
    second = timedelta(seconds=1)
    delays = {"first": second, "second": second + gap, "third": second + 2 * WINDOW}
    for name in order:
        agenda.add(name, delays[name])
    await clock.advance(agenda.wake_at(FAR) * MICROSECOND)
    assert clock.monotonic() == 1.05
    assert due(agenda) == ["first", "second"]


async def test_without_a_window_nothing_is_delayed(clock: FakeClock) -> None:
    """Each is woken for at its own moment."""
    agenda = Agenda(clock, timedelta(0))
    agenda.add("first", timedelta(seconds=1))
    agenda.add("second", timedelta(seconds=1) + MICROSECOND)
    assert agenda.wake_at(FAR) == 1_000_000


async def test_it_wakes_no_later_than_the_limit(agenda: Agenda) -> None:
    """Whatever is due then: the store is to be looked at."""
    agenda.add("tick", timedelta(seconds=1))
    assert agenda.wake_at(999_999) == 999_999


async def test_a_window_does_not_outlast_the_limit(agenda: Agenda) -> None:
    """The limit lies within the window: it wins."""
    agenda.add("first", timedelta(seconds=1))
    agenda.add("second", timedelta(seconds=1))
    assert agenda.wake_at(1_010_000) == 1_010_000


async def test_an_empty_agenda_wakes_at_the_limit(agenda: Agenda) -> None:
    """There is nothing else to wake for."""
    assert agenda.wake_at(15_000_000) == 15_000_000


async def test_time_counts_whole_microseconds(agenda: Agenda, clock: FakeClock) -> None:
    """Of the monotonic clock, which a step of the wall clock does not move."""
    await clock.advance(seconds=5, microseconds=1)
    clock.step(hours=1)
    assert agenda.time() == 5_000_001
