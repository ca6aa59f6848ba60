"""The contract of a store: what is due, who may run, and what is remembered of it.

Both stores keep it. What takes more than one process is in `test_sql_store.py`.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.cron.memory_store import MemoryStore
from app.cron.store import HISTORY_RUNS, Claim, Outcome, Registration, Store
from support import FakeClock
from support.databases import cron_database, empty_url
from support.stores import (
    INTERVAL,
    NOW,
    after,
    claim,
    delay_of,
    ended,
    failed,
    first_in,
    look_at,
    ok,
    sql_store,
)

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Store]:
    """A store of each kind, empty."""
    if request.param == "memory":
        yield MemoryStore(clock)
    else:
        with cron_database(empty_url(request)) as database:
            yield sql_store(database, clock)


# When a job cannot be due any more


@pytest.mark.parametrize(
    ("started", "latest", "why"),
    [
        (None, "02T03:00", "it has never run"),
        ("01T03:00", "02T03:00", "it ran the day before"),
        ("02T02:30", "02T03:00", "it began just now"),
        ("02T02:31", "02T03:00", "set back by a minute: three o'clock is still to come"),
        ("02T03:00", "03T03:00", "set back by half an hour: three o'clock has been"),
        ("03T02:59", "03T03:00", "set back by a day: the last one before is still to come"),
        ("03T03:01", "02T03:00", "set back by two times of day: what has been counts no more"),
    ],
)
def test_a_clock_set_back_makes_nothing_due_again(
    started: str | None, latest: str, why: str
) -> None:
    """It is half past two on the second, and the job runs at three each day."""

    def january(moment: str) -> datetime:
        return datetime.fromisoformat(f"2026-01-{moment}Z")

    def next_three(moment: datetime) -> datetime:
        today = moment.replace(hour=3, minute=0)
        return today if moment < today else today + timedelta(days=1)

    daily = Registration("tick", next_three, next_three, steady=False)
    started_at = january(started) if started else None
    assert daily.latest_due(january("02T02:30"), started_at) == january(latest), why


def test_a_steady_job_counts_from_now() -> None:
    """Whenever it began: its gap is as long as ever."""
    steady = first_in(MINUTE, steady=True)
    assert steady.latest_due(MONDAY, MONDAY + HOUR) == MONDAY + timedelta(days=1)


# Registering


async def test_a_new_job_is_due_when_its_schedule_says(store: Store) -> None:
    """`first` answers from the store's now."""
    await store.register([first_in(MINUTE)])
    assert await delay_of(store) == MINUTE


async def test_a_new_job_has_run_no_times(store: Store) -> None:
    """Its first run will be number 1."""
    await store.register([first_in(MINUTE)])
    assert (await look_at(store)).run_no == 0


async def test_a_job_that_is_known_keeps_its_due_time(store: Store, clock: FakeClock) -> None:
    """It is not put off, nor brought forward, by a second registration."""
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=10)
    [look] = await store.register([first_in(HOUR)])
    assert look.delay == 50 * SECOND


async def test_a_job_that_is_known_keeps_its_number(store: Store) -> None:
    """The count goes on."""
    await store.register([first_in(NOW)])
    await claim(store)
    [look] = await store.register([first_in(NOW)])
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
    assert (await look_at(store)).run_no == 0
    assert await store.history("tick") == []


async def test_a_run_is_claimed_once(store: Store) -> None:
    """Whoever saw the same and comes second gets nothing, though the next run is due already."""
    await store.register([first_in(NOW)])
    wish = after(0, delay=NOW)
    assert [len(await store.claim([wish])) for _ in range(2)] == [1, 0]


async def test_one_batch_claims_a_run_once(store: Store) -> None:
    """Also when it asks twice."""
    await store.register([first_in(NOW)])
    wish = after(0, delay=NOW)
    assert len(await store.claim([wish, wish])) == 1


@pytest.mark.parametrize("run_no", [0, 2])
async def test_a_claim_must_know_the_last_run(store: Store, run_no: int) -> None:
    """After run 1, neither who saw none nor who saw two may run."""
    await store.register([first_in(NOW)])
    await store.finish([ok(await claim(store, delay=NOW))])
    assert await store.claim([after(run_no)]) == []
    assert (await look_at(store)).run_no == 1


async def test_runs_are_numbered(store: Store) -> None:
    """Each is one more than the one before."""
    await store.register([first_in(NOW)])
    for run_no in range(3):
        claimed = await claim(store, run_no, delay=NOW)
        assert claimed.run_no == run_no + 1
        await store.finish([ok(claimed)])


async def test_the_next_due_time_counts_from_the_claim(store: Store, clock: FakeClock) -> None:
    """Not from when the run was due: an overdue one does not bring the next one nearer."""
    await store.register([first_in(NOW)])
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
    await store.register([first_in(NOW, name) for name in ("lost", "b", "a")])
    await store.register([first_in(MINUTE, "later")])
    await store.claim([after(0, "lost")])
    wishes = [after(0, name) for name in ("lost", "b", "later", "a")]
    assert [claimed.name for claimed in await store.claim(wishes)] == ["b", "a"]


async def test_a_batch_that_fails_changes_nothing(store: Store) -> None:
    """One schedule that raises leaves all of them as due as before, and claimed by nobody."""
    await store.register([first_in(NOW), first_in(NOW, "broken")])
    broken = Claim("broken", 0, lambda now: now + timedelta.max)
    with pytest.raises(OverflowError):
        await store.claim([after(0), broken])
    looks = await store.look(["tick", "broken"])
    assert [(look.run_no, look.delay) for look in looks] == [(0, NOW)] * 2
    assert await store.history("tick") == []


async def test_a_claim_leaves_other_jobs_alone(store: Store) -> None:
    """They are as due as before."""
    await store.register([first_in(NOW), first_in(NOW, "other")])
    await claim(store)
    [look] = await store.look(["other"])
    assert (look.run_no, look.delay) == (0, NOW)


# Finishing


async def test_a_run_that_has_not_ended_has_no_outcome(store: Store) -> None:
    """Nor an end."""
    await store.register([first_in(NOW)])
    await claim(store)
    [run] = await store.history("tick")
    assert (run.outcome, run.finished_at) == (None, None)


async def test_the_end_of_a_run_is_remembered(store: Store, clock: FakeClock) -> None:
    """When it was due, when it started, when it ended, how, and its note. Not when it was told."""
    start = clock.now()
    await store.register([first_in(MINUTE)])
    await clock.advance(seconds=70)
    claimed = await claim(store)
    await clock.advance(seconds=30)
    await store.finish([ok(claimed, "deleted 5", seconds=10)])
    [run] = await store.history("tick")
    assert (run.run_no, run.outcome, run.note, run.error) == (1, "ok", "deleted 5", "")
    moments = [run.due_at, run.started_at, run.finished_at]
    assert moments == [start + seconds * SECOND for seconds in (60, 70, 80)]


async def test_the_error_of_a_run_is_remembered(store: Store) -> None:
    """It has no note."""
    await store.register([first_in(NOW)])
    await store.finish([failed(await claim(store))])
    [run] = await store.history("tick")
    assert (run.outcome, run.note, run.error) == ("error", "", "ValueError: the reason")


async def test_failures_in_a_row_are_told_to_the_next_run(store: Store) -> None:
    """As the end of the last one counted them."""
    await store.register([first_in(NOW)])
    await store.finish([failed(await claim(store), failures=7, retry=NOW)])
    assert (await claim(store, 1)).failures == 7


async def test_a_first_run_has_no_failures_before_it(store: Store) -> None:
    """The count begins at 0."""
    await store.register([first_in(NOW)])
    assert (await claim(store)).failures == 0


async def test_the_end_of_a_run_can_leave_the_next_one(store: Store, clock: FakeClock) -> None:
    """It is told when that was due so far."""
    await store.register([first_in(NOW)])
    claimed = await claim(store)
    await clock.advance(MINUTE)
    ([look], _) = await store.finish([ok(claimed)])
    assert look.delay == INTERVAL - MINUTE


async def test_the_end_of_a_run_can_move_the_next_one(store: Store, clock: FakeClock) -> None:
    """It is told the store's now."""
    await store.register([first_in(NOW)])
    claimed = await claim(store)
    await clock.advance(MINUTE)
    ([look], _) = await store.finish([failed(claimed, retry=5 * SECOND)])
    assert look.delay == 5 * SECOND
    assert await delay_of(store) == 5 * SECOND


async def test_the_end_of_an_older_run_changes_nothing(store: Store, clock: FakeClock) -> None:
    """When the job has been claimed again, whoever comes late no longer decides anything."""
    await store.register([first_in(NOW)])
    older = await claim(store)
    await store.finish([ok(older)])
    await clock.advance(INTERVAL)
    newer = await claim(store, 1)
    ([look], _) = await store.finish([failed(older, failures=7, retry=NOW)])
    assert (look.run_no, look.delay) == (2, INTERVAL)
    assert [run.error for run in await store.history("tick")] == ["", ""]
    await store.finish([ok(newer)])
    await clock.advance(INTERVAL)
    assert (await claim(store, 2)).failures == 0


async def test_ends_are_looked_at_in_their_order(store: Store) -> None:
    """One look for each."""
    await store.register([first_in(NOW, name) for name in "abc"])
    claimed = await store.claim([after(0, name) for name in "abc"])
    looks, _ = await store.finish([ok(claimed[2]), failed(claimed[0])])
    assert [(look.name, look.delay) for look in looks] == [("c", INTERVAL), ("a", 5 * SECOND)]


# The history


async def test_a_job_that_never_ran_has_no_history(store: Store) -> None:
    """It is known all the same."""
    await store.register([first_in(MINUTE)])
    assert await store.history("tick") == []


async def test_a_job_that_nobody_knows_has_no_history(store: Store) -> None:
    """It may have been forgotten."""
    assert await store.history("nobody") == []


async def test_the_history_begins_with_the_oldest_run(store: Store) -> None:
    """And has each of them."""
    await store.register([first_in(NOW)])
    for run_no in range(3):
        await store.finish([ok(await claim(store, run_no, NOW), f"the {run_no}.")])
    history = await store.history("tick")
    assert [(run.run_no, run.note) for run in history] == [
        (1, "the 0."),
        (2, "the 1."),
        (3, "the 2."),
    ]


async def test_each_job_has_a_history_of_its_own(store: Store) -> None:
    """A run of one is none of another."""
    await store.register([first_in(NOW), first_in(NOW, "other")])
    await claim(store)
    assert await store.history("other") == []


async def test_fifty_runs_are_remembered_however_old(store: Store, clock: FakeClock) -> None:
    """Of a job that runs once a day too, whose every run but eight is older than seven days."""
    await store.register([first_in(NOW)])
    for run_no in range(99):
        await store.finish([ok(await claim(store, run_no, NOW))])
        await clock.advance(days=1)
    assert HISTORY_RUNS == 50
    assert [run.run_no for run in await store.history("tick")][-50:] == list(range(50, 100))


# Requests


async def test_a_request_makes_a_job_due(store: Store) -> None:
    """At once, though it would be due in five minutes, and it need not be spread."""
    await store.register([first_in(INTERVAL)])
    assert not (await look_at(store)).prompt
    assert await store.request("tick")
    look = await look_at(store)
    assert (look.delay, look.prompt) == (NOW, True)
    assert (await claim(store)).requested


async def test_a_requested_run_was_due_when_it_was_asked_for(
    store: Store, clock: FakeClock
) -> None:
    """For the first time: that is what it is late against. The run after it is due as ever."""
    asked = clock.now()
    await store.register([first_in(INTERVAL)])
    for _ in range(2):
        await store.request("tick")
        await clock.advance(SECOND)
    assert (await claim(store)).due_at == asked
    assert await delay_of(store) == INTERVAL


async def test_a_run_that_is_due_was_not_asked_for(store: Store) -> None:
    """It can be too late."""
    await store.register([first_in(NOW)])
    assert not (await claim(store)).requested


async def test_a_request_does_not_put_off_what_is_overdue(store: Store, clock: FakeClock) -> None:
    """It has waited for as long as before."""
    await store.register([first_in(NOW)])
    await clock.advance(MINUTE)
    await store.request("tick")
    assert await delay_of(store) == -MINUTE


async def test_many_requests_before_a_start_share_it(store: Store) -> None:
    """Thirty-two at once lead to one run."""
    await store.register([first_in(INTERVAL)])
    assert all(await asyncio.gather(*(store.request("tick") for _ in range(32))))
    await store.finish([ok(await claim(store))])
    assert await store.claim([after(1)]) == []
    assert await delay_of(store) == INTERVAL


@pytest.mark.parametrize("paused", [False, True])
async def test_a_request_during_a_run_waits_for_its_end(store: Store, paused: bool) -> None:
    """It does not start a second one beside it, and it is not lost; the job may be paused."""
    await store.register([first_in(NOW)])
    first = await claim(store)
    if paused:
        await store.pause("tick")
    await store.request("tick")
    assert await store.claim([after(1)]) == []
    ([look], _) = await store.finish([ok(first)])
    assert (look.delay, look.prompt) == (NOW, True)
    await store.finish([ok(await claim(store, 1))])
    assert await store.claim([after(2)]) == []


async def test_a_request_runs_a_paused_job(store: Store) -> None:
    """Once. It is as paused as before."""
    await store.register([first_in(NOW)])
    await store.pause("tick")
    await store.request("tick")
    assert not (await look_at(store)).paused
    ([look], _) = await store.finish([ok(await claim(store, delay=NOW))])
    assert look.paused
    assert await store.claim([after(1)]) == []


@pytest.mark.parametrize("paused", [False, True])
async def test_a_forced_claim_asks_for_no_due_time(store: Store, paused: bool) -> None:
    """Nor for a pause: somebody is at the keyboard, and the run counts as asked for."""
    await store.register([first_in(INTERVAL)])
    if paused:
        await store.pause("tick")
    [claimed] = await store.claim([replace(after(0), forced=True)])
    assert claimed.requested
    assert claimed.due_at == claimed.started_at


async def test_a_forced_claim_does_not_run_a_job_twice(store: Store) -> None:
    """It waits for nobody's end."""
    await store.register([first_in(NOW)])
    await claim(store)
    assert await store.claim([replace(after(1), forced=True)]) == []


# Pauses


async def test_a_paused_job_is_not_claimed(store: Store) -> None:
    """However due it is."""
    await store.register([first_in(NOW)])
    assert await store.pause("tick")
    assert (await look_at(store)).paused
    assert await store.claim([after(0)]) == []


async def test_a_resumed_job_is_as_due_as_it_was(store: Store, clock: FakeClock) -> None:
    """A pause moves no due time."""
    await store.register([first_in(MINUTE)])
    await store.pause("tick")
    await clock.advance(minutes=3)
    assert await store.resume("tick")
    look = await look_at(store)
    assert (look.delay, look.paused) == (-2 * MINUTE, False)
    assert (await claim(store)).started_at == clock.now()


async def test_a_run_goes_on_during_a_pause(store: Store) -> None:
    """It ends as it would have."""
    await store.register([first_in(NOW)])
    claimed = await claim(store)
    await store.pause("tick")
    assert await store.heartbeat([claimed]) == {"tick": True}
    ([look], _) = await store.finish([ok(claimed)])
    assert (look.run_no, look.paused) == (1, True)


async def test_a_pause_is_of_one_job(store: Store) -> None:
    """As a request is."""
    await store.register([first_in(INTERVAL, name) for name in ("other", "tick")])
    await store.pause("tick")
    await store.request("tick")
    look = await look_at(store, "other")
    assert (look.paused, look.delay) == (False, INTERVAL)


@pytest.mark.parametrize("verb", ["request", "pause", "resume"])
async def test_who_steers_a_job_that_is_unknown_is_told(store: Store, verb: str) -> None:
    """The answer is False."""
    await store.register([first_in(NOW)])
    assert not await getattr(store, verb)("tock")


# Runs under way


async def test_a_run_under_way_is_not_lost(store: Store) -> None:
    """Its heartbeat says so."""
    await store.register([first_in(NOW)])
    assert await store.heartbeat([await claim(store)]) == {"tick": True}


async def test_a_heartbeat_names_what_is_not_under_way(store: Store) -> None:
    """A run that has ended, and one that is not its job's last."""
    await store.register([first_in(NOW, name) for name in ("ended", "older", "tick")])
    runs = await store.claim([after(0, name, NOW) for name in ("ended", "older", "tick")])
    await store.finish([ok(run) for run in runs[:2]])
    await store.claim([after(1, "older")])
    assert await store.heartbeat(runs) == {"ended": False, "older": False, "tick": True}


async def test_a_run_ends_once(store: Store) -> None:
    """Who says so again, or otherwise, changes nothing."""
    await store.register([first_in(NOW)])
    claimed = await claim(store)
    await store.finish([ok(claimed, "the first word")])
    ([look], _) = await store.finish([failed(claimed, failures=7, retry=NOW)])
    assert look.delay == INTERVAL
    [run] = await store.history("tick")
    assert (run.outcome, run.note, run.error) == ("ok", "the first word", "")


@pytest.mark.parametrize("outcome", ["ok", "error", "timeout", "interrupted", "missed"])
async def test_only_what_was_cut_short_need_not_be_spread(store: Store, outcome: Outcome) -> None:
    """It had begun in time."""
    await store.register([first_in(NOW)])
    ([look], _) = await store.finish([ended(await claim(store), outcome)])
    assert look.prompt == (outcome == "interrupted")
    assert (await store.history("tick"))[0].outcome == outcome


async def test_who_is_alive_can_be_said(store: Store, clock: FakeClock) -> None:
    """Whether anybody asks or not: the jobs are as due as before."""
    await store.register([first_in(MINUTE)])
    await store.check_in()
    await store.check_in((clock.now() - HOUR, clock.now()))
    await store.check_out()
    assert await delay_of(store) == MINUTE
