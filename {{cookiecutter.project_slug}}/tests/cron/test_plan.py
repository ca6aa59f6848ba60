"""The plan: when each job is tried, by what the store says of it."""

from datetime import timedelta

import pytest

from app.cron.clock import RandomSource, seeded
from app.cron.due import Fixed
from app.cron.job import Job
from app.cron.plan import LOOK_EVERY, Plan
from app.cron.schedule import Schedule, crontab, every
from app.cron.store import Look
from support import FakeClock, fixed, noted

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NOW = timedelta(0)
PERIODS = [10, 15, 20]


def plan_of(
    clock: FakeClock,
    *,
    schedule: Schedule | None = None,
    random: RandomSource | None = None,
    max_late: timedelta | None = None,
) -> Plan:
    """A plan of two jobs."""
    schedule = schedule or every(minutes=5)
    jobs = {
        name: Job(lambda: None, schedule, name, None, max_late, each_process=False)
        for name in ("tick", "tock")
    }
    return Plan(jobs, clock=clock, random=random or fixed(0.5), coalesce=NOW)


def seconds(plan: Plan, name: str = "tick") -> float | None:
    """In how long the job is tried, None for never."""
    delay = plan.agenda.delays().get(name)
    return None if delay is None else delay / SECOND


# What is due


@pytest.mark.parametrize("delay", [MINUTE, MICROSECOND, NOW])
async def test_a_job_is_tried_when_it_is_due(clock: FakeClock, delay: timedelta) -> None:
    """Neither sooner nor later."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, delay)])
    assert seconds(plan) == delay / SECOND


async def test_a_paused_job_keeps_no_other_back(clock: FakeClock) -> None:
    """Wherever it stands in the answer."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, NOW, paused=True), Look("tock", 1, MINUTE)])
    assert (seconds(plan), seconds(plan, "tock")) == (None, 60)


async def test_a_first_run_has_chance_of_its_own(clock: FakeClock) -> None:
    """Each job's, and the same however often the store asks."""
    keys = list[str]()
    registration = plan_of(clock, random=noted(keys)).registration("tick")
    assert registration.first(clock.now()) == registration.first(clock.now())
    assert keys == ["tick:0:gap"] * 2


@pytest.mark.parametrize("late", [MICROSECOND, SECOND])
async def test_what_is_a_little_late_is_tried_at_once(clock: FakeClock, late: timedelta) -> None:
    """A second is what a look takes, not a downtime."""
    plan = plan_of(clock, random=fixed(1))
    plan.add([Look("tick", 1, -late)])
    assert seconds(plan) == 0


@pytest.mark.parametrize(
    ("schedule", "draw", "expected"),
    [
        (every(minutes=5), 0, 0),
        (every(minutes=5), 0.5, 5),
        (every(minutes=5), 1, 10),
        (every(seconds=10), 1, 3),
        (every(minutes=5, jitter=0), 1, 0),
        (crontab("0 3 * * *"), 1, 0),
        (crontab("0 3 * * *", splay=timedelta(seconds=6)), 0.5, 3),
        (crontab("0 3 * * *", splay=timedelta(minutes=6)), 1, 10),
    ],
    ids=str,
)
async def test_what_is_overdue_waits_for_a_draw(
    clock: FakeClock, schedule: Schedule, draw: float, expected: float
) -> None:
    """From 0 to 10 s, or to jitter times interval, or to the splay if that is less."""
    plan = plan_of(clock, schedule=schedule, random=fixed(draw))
    plan.add([Look("tick", 1, -SECOND - MICROSECOND)])
    assert seconds(plan) == expected


@pytest.mark.parametrize(
    ("late", "max_late", "expected"), [(2, 60, 10), (2, 9, 6), (2, 3, 0), (2, 1, 0)]
)
async def test_no_draw_makes_an_overdue_run_too_late(
    clock: FakeClock, late: float, max_late: float, expected: float
) -> None:
    """With `max_late`, it is tried a second before that at the latest, so that it can begin."""
    plan = plan_of(clock, random=fixed(1), max_late=max_late * SECOND)
    plan.add([Look("tick", 1, -late * SECOND)])
    assert seconds(plan) == expected


async def test_what_is_prompt_is_tried_at_once(clock: FakeClock) -> None:
    """It was asked for, or cut short by a shutdown, however long ago."""
    plan = plan_of(clock, random=fixed(1))
    plan.add([Look("tick", 1, -MINUTE, prompt=True)])
    assert seconds(plan) == 0


async def test_each_overdue_run_has_a_draw_of_its_own(clock: FakeClock) -> None:
    """That follows from the seed, the job and its last run."""
    draws = set[float | None]()
    for name, run_no in (("tick", 1), ("tick", 2), ("tock", 1), ("tick", 1)):
        plan = plan_of(clock, random=seeded("one"))
        plan.add([Look(name, run_no, -MINUTE)])
        draws.add(seconds(plan, name))
    assert len(draws) == 3


async def test_what_is_paused_is_not_tried(clock: FakeClock) -> None:
    """Until a look finds that it is not."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, NOW, paused=True)])
    assert seconds(plan) is None
    plan.add([Look("tick", 1, NOW)])
    assert seconds(plan) == 0


async def test_nothing_is_tried_sooner_than_asked(clock: FakeClock) -> None:
    """After a claim in vain, or it would be asked for in a circle. What is due later stays so."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, NOW), Look("tock", 1, MINUTE)], soonest=SECOND)
    assert (seconds(plan), seconds(plan, "tock")) == (1, 60)


# What another process runs


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("held", [0.001, 9, 16, 1_000])
async def test_what_is_due_and_held_is_looked_at_again(
    clock: FakeClock, period: float, held: float
) -> None:
    """Each interval, at most 15 s apart, and when the lease is over."""
    plan = plan_of(clock, schedule=every(seconds=period))
    plan.add([Look("tick", 1, -MINUTE, held_for=held * SECOND)])
    assert plan.is_held("tick")
    assert seconds(plan) == min(period, held, LOOK_EVERY / SECOND)


async def test_what_is_held_and_not_due_is_tried_when_it_is(clock: FakeClock) -> None:
    """By then its run may have ended."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, MINUTE, held_for=5 * SECOND)])
    assert not plan.is_held("tick")
    assert seconds(plan) == 60


async def test_what_was_held_and_is_overdue_waits_for_a_draw(clock: FakeClock) -> None:
    """When its lease is over. The time until the next look was not that wait."""
    plan = plan_of(clock, random=fixed(1))
    plan.add([Look("tick", 1, -MINUTE, held_for=4 * SECOND)])
    await clock.advance(seconds=4)
    plan.renew([Look("tick", 1, -MINUTE)], stale=False)
    assert not plan.is_held("tick")
    assert seconds(plan) == 10


# Looking again


@pytest.mark.parametrize(("stale", "expected"), [(False, 4), (True, 10)])
async def test_a_look_does_not_delay_what_waits_already(
    clock: FakeClock, *, stale: bool, expected: float
) -> None:
    """Unless all is new, after an outage or an absence."""
    plan = plan_of(clock, random=fixed(1))
    plan.add([Look("tick", 1, -MINUTE)])
    await clock.advance(seconds=6)
    plan.renew([Look("tick", 1, -MINUTE - 6 * SECOND)], stale=stale)
    assert seconds(plan) == expected


@pytest.mark.parametrize("delay", [30, 90])
async def test_a_look_moves_what_the_store_has_moved(clock: FakeClock, delay: float) -> None:
    """Sooner or later: a request, another interval, a stepped clock, a run elsewhere."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, MINUTE)])
    plan.renew([Look("tick", 2, delay * SECOND)], stale=False)
    assert seconds(plan) == delay
    assert plan.wish("tick").run_no == 2


async def test_a_look_makes_due_what_became_prompt(clock: FakeClock) -> None:
    """Though it waits for a draw already."""
    plan = plan_of(clock, random=fixed(1))
    plan.add([Look("tick", 1, -MINUTE)])
    plan.renew([Look("tick", 1, -MINUTE, prompt=True)], stale=False)
    assert seconds(plan) == 0


async def test_a_look_drops_what_is_not_in_it(clock: FakeClock) -> None:
    """It runs here, and comes back with its end."""
    plan = plan_of(clock)
    plan.add([Look("tick", 1, MINUTE), Look("tock", 1, MINUTE)])
    plan.renew([Look("tock", 1, MINUTE)], stale=False)
    assert (seconds(plan), seconds(plan, "tock")) == (None, 60)


# What is asked of the store


async def test_a_wish_is_for_the_run_after_the_last_one_known(clock: FakeClock) -> None:
    """The gap after it is drawn for that run."""
    keys = list[str]()
    plan = plan_of(clock, random=noted(keys, 1))
    plan.know("tick", 7)
    wish = plan.wish("tick")
    assert (wish.name, wish.run_no, wish.forced) == ("tick", 7, False)
    assert wish.next_run_at(clock.now()) == clock.now() + 6.5 * MINUTE
    assert keys == ["tick:8:gap"]
    assert plan.wish("tick", forced=True).forced


async def test_the_same_question_has_the_same_answer(clock: FakeClock) -> None:
    """A store may ask again, for one job after another or when a job was forgotten: chance is that
    of the run, not of the question."""
    plan, now = plan_of(clock, random=seeded("one")), clock.now()
    plan.know("tick", 7)
    wish, registration = plan.wish("tick"), plan.registration("tick")
    assert wish.next_run_at(now) == wish.next_run_at(now)
    assert registration.first(now) == registration.first(now)


async def test_a_registration_says_what_the_schedule_says(clock: FakeClock) -> None:
    """When it is due first and at the latest, and whether steps of the wall clock move it."""
    now = clock.now()
    for schedule in (every(minutes=5), crontab("0 3 * * *")):
        job = plan_of(clock, schedule=schedule).registration("tick")
        assert (job.name, job.steady) == ("tick", schedule.steady)
        assert job.first(now) == schedule.first(now, Fixed(0.5))
        assert job.latest(now) == schedule.latest(now)
