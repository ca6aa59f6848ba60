"""The records: what people see of the jobs and how they steer them, the code running or not."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event

from app.cron.database import READERS, Database
from app.cron.postgres import WRITERS
from app.cron.records import OUTCOMES, JobRecord, Records
from app.cron.sql_store import SqlStore
from app.cron.store import Claimed, Outcome, Run
from support import FakeClock, on_postgres
from support.databases import busy, contents
from support.stores import (
    INTERVAL,
    LEASE,
    NOW,
    after,
    claim,
    ended,
    failed,
    first_in,
    look_at,
    ok,
    sql_store,
)

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def records(database: Database, clock: FakeClock) -> Records:
    """What the shell has in its hands: it knows of no job's code."""
    return Records(database, clock)


@pytest_asyncio.fixture
async def store(database: Database, clock: FakeClock) -> SqlStore:
    """A process that has the job `tick`, which is due."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    return store


async def record_of(records: Records, name: str = "tick") -> JobRecord:
    """What is known of the job."""
    return {job.name: job for job in await records.jobs()}[name]


async def outcomes_of(records: Records, name: str = "tick") -> list[Outcome | None]:
    """How its runs ended."""
    return [run.outcome for run in await records.history(name)]


def counts(**more: int) -> dict[str, int]:
    """So many of each outcome, and none of the others."""
    return {**dict.fromkeys(OUTCOMES, 0), **more}


async def test_who_looks_waits_for_no_reader(
    records: Records, store: SqlStore, database: Database
) -> None:
    """The health of a service is asked for while its jobs read long reports."""
    async with busy(database.read, READERS):
        assert [job.name for job in await records.jobs()] == ["tick"]
        assert (await records.now()).tzinfo is UTC


@on_postgres
async def test_who_asks_waits_for_no_writer(
    records: Records, store: SqlStore, database: Database
) -> None:
    """Nor does the scheduler. SQLite has one writer, which takes first what is urgent."""
    async with busy(database.write, WRITERS):
        await records.request("tick")


# Jobs


def test_runs_end_in_one_of_six_ways() -> None:
    """Those are in the database, and dashboards and scripts may ask for them."""
    assert OUTCOMES == ("ok", "error", "timeout", "interrupted", "abandoned", "missed")


async def test_no_job_is_known_at_first(records: Records) -> None:
    """An empty list, and an empty history of whatever name."""
    assert await records.jobs() == []
    assert await records.history("tick") == []


async def test_a_job_that_never_ran_is_known(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """It is due, and that is all."""
    assert await records.jobs() == [
        JobRecord("tick", clock.now(), None, False, 0, 0, None, None, counts())  # type: ignore[arg-type]
    ]


async def test_jobs_come_by_name(records: Records, store: SqlStore) -> None:
    """Whichever process has registered them, and whether one still does or not."""
    await store.register([first_in(NOW, name) for name in ("zebra", "ant")])
    assert [job.name for job in await records.jobs()] == ["ant", "tick", "zebra"]


async def test_a_job_under_way_shows_who_runs_it(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """And the run, which has no outcome as long as its lease holds."""
    await claim(store)
    record = await record_of(records)
    assert (record.held_by, record.run_no) == ("one", 1)
    assert record.last_run == Run(1, clock.now(), clock.now(), owner="one")
    assert record.next_run_at == clock.now() + INTERVAL


async def test_a_job_that_has_run_shows_how_it_ended(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """The run, and how often in a row it has failed."""
    start, claimed = clock.now(), await claim(store)
    await store.finish([failed(claimed, failures=3)])
    record = await record_of(records)
    assert (record.held_by, record.failures) == (None, 3)
    assert record.last_run == Run(
        1, start, start, start, "error", "one", "", "ValueError: the reason"
    )


async def test_a_pause_and_a_request_are_shown(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """And since when it was asked for: a second request does not bring that forward."""
    asked = clock.now()
    for _ in range(2):
        await records.request("tick")
        await clock.advance(SECOND)
    await records.pause("tick")
    record = await record_of(records)
    assert (record.requested_at, record.paused) == (asked, True)
    await records.resume("tick")
    await claim(store)
    record = await record_of(records)
    assert (record.requested_at, record.paused) == (None, False)


@pytest.mark.parametrize("outcome", ["ok", "error", "timeout", "interrupted", "missed"])
async def test_runs_are_counted_by_their_outcome(
    records: Records, store: SqlStore, outcome: Outcome
) -> None:
    """For as long as the job is known; a run under way is not counted."""
    for run_no in range(2):
        await store.finish([ended(await claim(store, run_no, NOW), outcome)])
    await claim(store, 2)
    assert (await record_of(records)).counts == counts(**{outcome: 2})
    assert await outcomes_of(records) == [outcome, outcome, None]


async def begin_another(store: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """End the run, and begin the next."""
    await store.finish([ok(run)])
    await claim(store, 1)


async def renew(store: SqlStore, clock: FakeClock, run: Claimed) -> None:
    """Let the lease of the run hold for longer, as seen from before."""
    clock.step(MICROSECOND)
    await store.heartbeat([run])


@pytest.mark.parametrize(
    "ask", [lambda it: it.history("tick"), lambda it: it.jobs()], ids=["history", "jobs"]
)
@pytest.mark.parametrize(
    ("moment", "meanwhile"),
    [("before_cursor_execute", renew), ("after_cursor_execute", begin_another)],
)
async def test_what_is_shown_was_so_at_one_moment(
    records: Records,
    store: SqlStore,
    database: Database,
    clock: FakeClock,
    ask: Callable[[Records], Awaitable[list[Run] | list[JobRecord]]],
    moment: str,
    meanwhile: Callable[[SqlStore, FakeClock, Claimed], Coroutine[Any, Any, None]],
) -> None:
    """Others write while somebody reads; that makes no run under way look abandoned."""
    claimed, done = await claim(store, delay=NOW), list[None]()

    def act_once(*_: Any) -> None:
        if not done:
            done.append(asyncio.run(meanwhile(store, clock, claimed)))

    event.listen(database._read_engine, moment, act_once)
    [shown] = await ask(records)
    run = shown.last_run if isinstance(shown, JobRecord) else shown
    assert done
    assert run is not None
    assert (run.run_no, run.outcome) == (1, None)


# Abandoned runs


@pytest.mark.parametrize(("early", "outcome"), [(MICROSECOND, None), (NOW, "abandoned")])
async def test_a_run_without_an_end_is_abandoned_when_its_lease_is_over(
    records: Records, store: SqlStore, clock: FakeClock, early: timedelta, outcome: Outcome | None
) -> None:
    """As soon as somebody looks; nobody need have claimed the job again."""
    await claim(store)
    await clock.advance(LEASE - early)
    record = await record_of(records)
    assert record.last_run is not None
    assert (record.last_run.outcome, record.held_by) == (outcome, None if outcome else "one")
    assert await outcomes_of(records) == [outcome]


async def test_the_next_claim_abandons_a_run_without_an_end(
    records: Records, store: SqlStore, database: Database, clock: FakeClock
) -> None:
    """As in db-scheduler's DeadExecutionsTest: it is written down, and counted once. When it ended
    nobody knows."""
    await claim(store, delay=NOW)
    await clock.advance(LEASE)
    assert (await record_of(records)).counts == counts()
    await claim(store, 1)
    abandoned, under_way = await records.history("tick")
    assert (abandoned.outcome, abandoned.finished_at) == ("abandoned", None)
    assert under_way.outcome is None
    assert [row[5] for row in contents(database)["cron_run"]] == ["abandoned", None]
    assert (await record_of(records)).counts == counts(abandoned=1)


async def test_a_run_that_has_ended_is_not_abandoned(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """Whatever its lease says later."""
    await store.finish([ok(await claim(store, delay=NOW))])
    await clock.advance(LEASE)
    await claim(store, 1)
    assert await outcomes_of(records) == ["ok", None]
    assert (await record_of(records)).counts == counts(ok=1)


async def test_only_the_runs_of_claimed_jobs_are_abandoned(
    records: Records, store: SqlStore, clock: FakeClock
) -> None:
    """A run of another job goes on."""
    await store.register([first_in(NOW, "other")])
    runs = await store.claim([after(0, delay=NOW), after(0, "other")])
    await clock.advance(LEASE / 2)
    await store.heartbeat(runs[1:])
    await clock.advance(LEASE / 2)
    await claim(store, 1)
    assert await outcomes_of(records, "other") == [None]
    await store.finish([ok(runs[1])])
    assert (await record_of(records, "other")).counts == counts(ok=1)


# Forgetting


async def test_a_forgotten_job_is_gone(
    records: Records, store: SqlStore, database: Database
) -> None:
    """Its row and its history, and nothing of another job's."""
    await store.register([first_in(NOW, "other")])
    for name in ("other", "tick"):
        [run] = await store.claim([after(0, name)])
        await store.finish([ok(run)])
    assert await records.forget("tick")
    left = contents(database)
    assert [row[0] for row in (*left["cron_job"], *left["cron_run"])] == ["other", "other"]


async def test_a_job_under_way_is_not_forgotten(
    records: Records, store: SqlStore, database: Database, clock: FakeClock
) -> None:
    """Until its lease is over."""
    await claim(store)
    await clock.advance(LEASE - MICROSECOND)
    before = contents(database)
    assert not await records.forget("tick")
    assert contents(database) == before
    await clock.advance(MICROSECOND)
    assert await records.forget("tick")
    assert await records.jobs() == []


async def test_a_job_that_is_unknown_cannot_be_forgotten(records: Records, store: SqlStore) -> None:
    """Nor steered; the answer is False."""
    for verb in (records.forget, records.request, records.pause, records.resume):
        assert not await verb("tock")
    assert (await look_at(store)).run_no == 0
