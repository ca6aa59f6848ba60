"""The store: what is due, who may run, and what is remembered of it."""

from datetime import timedelta

import pytest

from app.cron.memory_store import MemoryStore
from app.cron.store import HISTORY_RUNS, Claim, Claimed, Finish, Registration, Store
from support import FakeClock

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
INTERVAL = timedelta(minutes=5)


@pytest.fixture(params=[MemoryStore], ids=["memory"])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> Store:
    """A store of each kind, empty."""
    made: Store = request.param(clock)
    return made


def first_in(delay: timedelta, name: str = "tick", *, steady: bool = True) -> Registration:
    """A job that is due for the first time in so long, and at the latest in a day."""
    return Registration(
        name, lambda now: now + delay, lambda now: now + timedelta(days=1), steady=steady
    )


def after(run_no: int, name: str = "tick", delay: timedelta = INTERVAL) -> Claim:
    """The wish to run what comes after a run, and then again in so long."""
    return Claim(name, run_no, lambda now: now + delay)


def ok(claimed: Claimed, note: str = "") -> Finish:
    """The good end of a run, whose next one stays due when it was."""
    return Finish(
        claimed.name,
        claimed.run_no,
        "ok",
        note,
        error="",
        failures=0,
        next_run_at=lambda _, due: due,
    )


def failed(claimed: Claimed, failures: int = 1, retry: timedelta = 5 * SECOND) -> Finish:
    """The bad end of a run, after which the next one is due in so long."""
    return Finish(
        claimed.name,
        claimed.run_no,
        "error",
        note="",
        error="ValueError: the reason",
        failures=failures,
        next_run_at=lambda now, _: now + retry,
    )


async def delay_of(store: Store, name: str = "tick") -> timedelta:
    """In how long the job is due."""
    [look] = await store.look([name])
    return look.delay


async def run_no_of(store: Store, name: str = "tick") -> int:
    """The number of the job's last run."""
    [look] = await store.look([name])
    return look.run_no


async def claim(store: Store, run_no: int = 0, delay: timedelta = INTERVAL) -> Claimed:
    """The run after `run_no`, which can be had."""
    [claimed] = await store.claim([after(run_no, delay=delay)])
    return claimed


# Registering


async def test_a_new_job_is_due_when_its_schedule_says(store: Store) -> None:
    """`first` answers from the store's now."""
    await store.register([first_in(MINUTE)])
    assert await delay_of(store) == MINUTE


async def test_a_new_job_has_run_no_times(store: Store) -> None:
    """Its first run will be number 1."""
    await store.register([first_in(MINUTE)])
    assert await run_no_of(store) == 0


async def test_a_job_that_is_known_keeps_its_due_time(store: Store, clock: FakeClock) -> None:
    """It is not put off, nor brought forward, by a second registration."""
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=10)
    [look] = await store.register([first_in(HOUR)])
    assert look.delay == 50 * SECOND


async def test_a_job_that_is_known_keeps_its_number(store: Store) -> None:
    """The count goes on."""
    await store.register([first_in(timedelta(0))])
    await claim(store)
    [look] = await store.register([first_in(timedelta(0))])
    assert look.run_no == 1


async def test_all_that_are_registered_are_looked_at(store: Store) -> None:
    """In the order in which they were given, known or new."""
    await store.register([first_in(MINUTE, "known")])
    looks = await store.register([first_in(HOUR, "new"), first_in(HOUR, "known")])
    assert [(look.name, look.delay) for look in looks] == [("new", HOUR), ("known", MINUTE)]


# Looking


async def test_a_delay_shrinks_as_time_passes(store: Store, clock: FakeClock) -> None:
    """By what has passed."""
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=59)
    assert await delay_of(store) == SECOND


async def test_the_delay_of_what_is_overdue_is_negative(store: Store, clock: FakeClock) -> None:
    """It says for how long it has waited."""
    await store.register([first_in(MINUTE)])
    await clock.advance(minutes=3)
    assert await delay_of(store) == -2 * MINUTE


async def test_looks_come_in_the_order_of_the_names(store: Store) -> None:
    """One for each name, and none for others."""
    await store.register([first_in(MINUTE, name) for name in "abc"])
    assert [look.name for look in await store.look(["c", "a"])] == ["c", "a"]


# Claiming


async def test_what_is_exactly_due_can_be_claimed(store: Store, clock: FakeClock) -> None:
    """At the very moment."""
    await store.register([first_in(MINUTE)])
    await clock.advance(MINUTE)
    assert len(await store.claim([after(0)])) == 1


async def test_what_is_not_yet_due_cannot_be_claimed(store: Store, clock: FakeClock) -> None:
    """Not by a microsecond."""
    await store.register([first_in(MINUTE)])
    await clock.advance(MINUTE - MICROSECOND)
    assert await store.claim([after(0)]) == []


async def test_a_claim_before_its_time_changes_nothing(store: Store) -> None:
    """The job is as due as before, and no run is remembered."""
    await store.register([first_in(MINUTE)])
    await store.claim([after(0)])
    assert await delay_of(store) == MINUTE
    assert await run_no_of(store) == 0
    assert await store.history("tick") == []


async def test_a_run_is_claimed_once(store: Store) -> None:
    """Whoever saw the same and comes second gets nothing, though the next run is due already."""
    await store.register([first_in(timedelta(0))])
    wish = after(0, delay=timedelta(0))
    assert [len(await store.claim([wish])) for _ in range(2)] == [1, 0]


async def test_one_batch_claims_a_run_once(store: Store) -> None:
    """Also when it asks twice."""
    await store.register([first_in(timedelta(0))])
    wish = after(0, delay=timedelta(0))
    assert len(await store.claim([wish, wish])) == 1


@pytest.mark.parametrize("run_no", [0, 2])
async def test_a_claim_must_know_the_last_run(store: Store, run_no: int) -> None:
    """After run 1, neither who saw none nor who saw two may run."""
    await store.register([first_in(timedelta(0))])
    await store.finish([ok(await claim(store, delay=timedelta(0)))])
    assert await store.claim([after(run_no)]) == []
    assert await run_no_of(store) == 1


async def test_runs_are_numbered(store: Store) -> None:
    """Each is one more than the one before."""
    await store.register([first_in(timedelta(0))])
    for run_no in range(3):
        claimed = await claim(store, run_no, delay=timedelta(0))
        assert claimed.run_no == run_no + 1
        await store.finish([ok(claimed)])


async def test_the_next_due_time_counts_from_the_claim(store: Store, clock: FakeClock) -> None:
    """Not from when the run was due: an overdue one does not bring the next one nearer."""
    await store.register([first_in(timedelta(0))])
    await clock.advance(MINUTE)
    await claim(store)
    assert await delay_of(store) == INTERVAL


async def test_a_claimed_run_knows_when_it_was_due(store: Store, clock: FakeClock) -> None:
    """And when it has started: at the instant of the claim."""
    start = clock.now()
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=90)
    claimed = await claim(store)
    assert (claimed.due_at, claimed.started_at) == (start + MINUTE, start + 90 * SECOND)


async def test_a_batch_gets_what_is_due_of_it(store: Store) -> None:
    """In its order; what is not due, or was lost to another, is left out."""
    await store.register([first_in(timedelta(0), name) for name in ("lost", "b", "a")])
    await store.register([first_in(MINUTE, "later")])
    await store.claim([after(0, "lost")])
    wishes = [after(0, name) for name in ("lost", "b", "later", "a")]
    assert [claimed.name for claimed in await store.claim(wishes)] == ["b", "a"]


async def test_a_batch_that_fails_changes_nothing(store: Store) -> None:
    """One schedule that raises leaves all of them as due as before, and claimed by nobody."""
    await store.register([first_in(timedelta(0)), first_in(timedelta(0), "broken")])
    broken = Claim("broken", 0, lambda now: now + timedelta.max)
    with pytest.raises(OverflowError):
        await store.claim([after(0), broken])
    looks = await store.look(["tick", "broken"])
    assert [(look.run_no, look.delay) for look in looks] == [(0, timedelta(0))] * 2
    assert await store.history("tick") == []


async def test_a_claim_leaves_other_jobs_alone(store: Store) -> None:
    """They are as due as before."""
    await store.register([first_in(timedelta(0)), first_in(timedelta(0), "other")])
    await claim(store)
    [look] = await store.look(["other"])
    assert (look.run_no, look.delay) == (0, timedelta(0))


# Finishing


async def test_a_run_that_has_not_ended_has_no_outcome(store: Store) -> None:
    """Nor an end."""
    await store.register([first_in(timedelta(0))])
    await claim(store)
    [run] = await store.history("tick")
    assert (run.outcome, run.finished_at) == (None, None)


async def test_the_end_of_a_run_is_remembered(store: Store, clock: FakeClock) -> None:
    """When it was due, when it started, when it ended, how, and its note."""
    start = clock.now()
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=70)
    claimed = await claim(store)
    await clock.advance(seconds=10)
    await store.finish([ok(claimed, "deleted 5")])
    [run] = await store.history("tick")
    assert (run.run_no, run.outcome, run.note, run.error) == (1, "ok", "deleted 5", "")
    moments = [run.due_at, run.started_at, run.finished_at]
    assert moments == [start + seconds * SECOND for seconds in (60, 70, 80)]


async def test_the_error_of_a_run_is_remembered(store: Store) -> None:
    """It has no note."""
    await store.register([first_in(timedelta(0))])
    await store.finish([failed(await claim(store))])
    [run] = await store.history("tick")
    assert (run.outcome, run.note, run.error) == ("error", "", "ValueError: the reason")


async def test_failures_in_a_row_are_told_to_the_next_run(store: Store) -> None:
    """As the end of the last one counted them."""
    await store.register([first_in(timedelta(0))])
    await store.finish([failed(await claim(store), failures=7, retry=timedelta(0))])
    assert (await claim(store, 1)).failures == 7


async def test_a_first_run_has_no_failures_before_it(store: Store) -> None:
    """The count begins at 0."""
    await store.register([first_in(timedelta(0))])
    assert (await claim(store)).failures == 0


async def test_the_end_of_a_run_can_leave_the_next_one(store: Store, clock: FakeClock) -> None:
    """It is told when that was due so far."""
    await store.register([first_in(timedelta(0))])
    claimed = await claim(store)
    await clock.advance(MINUTE)
    [look] = await store.finish([ok(claimed)])
    assert look.delay == INTERVAL - MINUTE


async def test_the_end_of_a_run_can_move_the_next_one(store: Store, clock: FakeClock) -> None:
    """It is told the store's now."""
    await store.register([first_in(timedelta(0))])
    claimed = await claim(store)
    await clock.advance(MINUTE)
    [look] = await store.finish([failed(claimed, retry=5 * SECOND)])
    assert look.delay == 5 * SECOND
    assert await delay_of(store) == 5 * SECOND


async def test_the_end_of_an_older_run_changes_nothing(store: Store, clock: FakeClock) -> None:
    """When the job has been claimed again, whoever comes late no longer decides anything."""
    await store.register([first_in(timedelta(0))])
    older = await claim(store)
    await store.finish([ok(older)])
    await clock.advance(INTERVAL)
    newer = await claim(store, 1)
    [look] = await store.finish([failed(older, failures=7, retry=timedelta(0))])
    assert (look.run_no, look.delay) == (2, INTERVAL)
    assert [run.error for run in await store.history("tick")] == ["", ""]
    await store.finish([ok(newer)])
    await clock.advance(INTERVAL)
    assert (await claim(store, 2)).failures == 0


async def test_ends_are_looked_at_in_their_order(store: Store) -> None:
    """One look for each."""
    await store.register([first_in(timedelta(0), name) for name in "abc"])
    claimed = await store.claim([after(0, name) for name in "abc"])
    looks = await store.finish([ok(claimed[2]), failed(claimed[0])])
    assert [(look.name, look.delay) for look in looks] == [("c", INTERVAL), ("a", 5 * SECOND)]


# The history


async def test_a_job_that_never_ran_has_no_history(store: Store) -> None:
    """It is known all the same."""
    await store.register([first_in(MINUTE)])
    assert await store.history("tick") == []


async def test_the_history_begins_with_the_oldest_run(store: Store) -> None:
    """And has each of them."""
    await store.register([first_in(timedelta(0))])
    for run_no in range(3):
        await store.finish([ok(await claim(store, run_no, timedelta(0)), f"the {run_no}.")])
    history = await store.history("tick")
    assert [(run.run_no, run.note) for run in history] == [
        (1, "the 0."),
        (2, "the 1."),
        (3, "the 2."),
    ]


async def test_each_job_has_a_history_of_its_own(store: Store) -> None:
    """A run of one is none of another."""
    await store.register([first_in(timedelta(0)), first_in(timedelta(0), "other")])
    await claim(store)
    assert await store.history("other") == []


async def test_the_last_fifty_runs_are_remembered(store: Store) -> None:
    """The oldest ones are forgotten first."""
    await store.register([first_in(timedelta(0))])
    for run_no in range(53):
        await store.finish([ok(await claim(store, run_no, timedelta(0)))])
    assert HISTORY_RUNS == 50
    assert [run.run_no for run in await store.history("tick")] == list(range(4, 54))


# A wall clock that is stepped, in the store that lives and dies with its process


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStore:
    """It has seen the monotonic clock since its jobs were registered."""
    return MemoryStore(clock)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_leaves_a_steady_job_its_distance(
    memory: MemoryStore, clock: FakeClock, hours: int
) -> None:
    """Forwards or back, it runs when it would have run."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=hours)
    assert await delay_of(memory) == MINUTE


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_step_leaves_another_job_its_time_of_day(
    memory: MemoryStore, clock: FakeClock, hours: int
) -> None:
    """An hour forwards, three in the morning is an hour nearer; an hour back, farther."""
    await memory.register([first_in(3 * HOUR, steady=False)])
    clock.step(hours=hours)
    assert await delay_of(memory) == (3 - hours) * HOUR


async def test_a_step_back_leaves_no_job_due_too_late(
    memory: MemoryStore, clock: FakeClock
) -> None:
    """Not later than its schedule can mean, as it sees the new time."""
    await memory.register([first_in(3 * HOUR, steady=False)])
    clock.step(days=-7)
    assert await delay_of(memory) == timedelta(days=1)


@pytest.mark.parametrize("seconds", [1, -1])
async def test_a_second_is_a_step(memory: MemoryStore, clock: FakeClock, seconds: float) -> None:
    """From there on, the distance is kept."""
    await memory.register([first_in(MINUTE)])
    clock.step(seconds=seconds)
    assert await delay_of(memory) == MINUTE


@pytest.mark.parametrize("seconds", [0.999_999, -0.999_999])
async def test_less_than_a_second_is_no_step(
    memory: MemoryStore, clock: FakeClock, seconds: float
) -> None:
    """It is how a clock is disciplined: what it shows is believed."""
    await memory.register([first_in(MINUTE)])
    clock.step(seconds=seconds)
    assert await delay_of(memory) == MINUTE - timedelta(seconds=seconds)


async def test_a_step_counts_once(memory: MemoryStore, clock: FakeClock) -> None:
    """The next look finds the clock where it was left."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    assert [await delay_of(memory) for _ in range(2)] == [MINUTE, MINUTE]


async def test_small_steps_do_not_add_up(memory: MemoryStore, clock: FakeClock) -> None:
    """Each look starts anew: three corrections in three looks are no step."""
    await memory.register([first_in(MINUTE)])
    for _ in range(3):
        clock.step(seconds=0.5)
        delay = await delay_of(memory)
    assert delay == 58.5 * SECOND


async def test_a_step_while_time_passes_is_told_apart(
    memory: MemoryStore, clock: FakeClock
) -> None:
    """Ten seconds have passed, an hour has not."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(seconds=10)
    clock.step(hours=1)
    assert await delay_of(memory) == 50 * SECOND


async def test_time_that_passes_is_no_step(memory: MemoryStore, clock: FakeClock) -> None:
    """However long nobody looked."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(days=30)
    assert await delay_of(memory) == MINUTE - timedelta(days=30)


async def test_a_step_forwards_makes_nothing_due(memory: MemoryStore, clock: FakeClock) -> None:
    """A claim sees it too."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    assert await memory.claim([after(0)]) == []


async def test_a_step_back_puts_off_nothing(memory: MemoryStore, clock: FakeClock) -> None:
    """What is due stays due."""
    await memory.register([first_in(MINUTE)])
    await clock.advance(MINUTE)
    clock.step(hours=-1)
    assert len(await memory.claim([after(0)])) == 1


async def test_the_end_of_a_run_sees_a_step(memory: MemoryStore, clock: FakeClock) -> None:
    """The next run is as far away as before it."""
    await memory.register([first_in(timedelta(0))])
    claimed = await claim(memory)
    clock.step(hours=1)
    [look] = await memory.finish([ok(claimed)])
    assert look.delay == INTERVAL


async def test_a_registration_sees_a_step(memory: MemoryStore, clock: FakeClock) -> None:
    """The jobs that are known keep their distance, the new one has that of its schedule."""
    await memory.register([first_in(MINUTE)])
    clock.step(hours=1)
    looks = await memory.register([first_in(MINUTE), first_in(HOUR, "new")])
    assert [look.delay for look in looks] == [MINUTE, HOUR]
