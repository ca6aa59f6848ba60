"""What Postgres alone has: several transactions at the same time, on real connections, a server
that may be gone, and a clock that all machines share."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from datetime import UTC, datetime, timedelta
from functools import partial
from socketserver import BaseRequestHandler, TCPServer
from typing import Any
from unittest.mock import patch

import pytest
import time_machine
from psycopg.errors import ConnectionTimeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from app.cron import JobContext, every, job
from app.cron.clock import SystemClock
from app.cron.database import Database, DatabaseError, reason_of
from app.cron.fence import LeaseLost, WriteTooLong
from app.cron.lock import lock_rows
from app.cron.postgres import WRITERS, PostgresDatabase, as_psycopg
from app.cron.records import Records
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Claimed, StoreUnavailable
from app.cron.tables import lock_schema, upgrade_tables
from app.db import database_at
from support import FakeClock, on_postgres, query, replica
from support.counts import create, increment, read_count
from support.databases import busy, contents, disconnect
from support.process import POLL_SECONDS, REAL_SECONDS_MAX
from support.stores import (
    LEASE,
    NOW,
    after,
    claim,
    first_in,
    look_at,
    ok,
    on_each_statement,
    sql_store,
)

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

pytestmark = on_postgres


@contextmanager
def transaction(database: Database, statement: str) -> Iterator[Connection]:
    """Another process's transaction, which has made the statement. The block may commit it."""
    with database._write_engine.connect() as connection:
        connection.exec_driver_sql(statement)
        yield connection


@asynccontextmanager
async def waiting(task: asyncio.Task[Any], database: Database) -> AsyncIterator[None]:
    """In the block, the task's transaction waits for a lock; after it, the task has ended."""
    waits = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + REAL_SECONDS_MAX
    while await asyncio.to_thread(query, database, waits) == [(0,)]:
        assert not task.done(), "it did not wait"
        assert time.monotonic() < deadline
    yield
    await asyncio.wait([task], timeout=REAL_SECONDS_MAX)
    assert task.done()


# Claims


async def test_a_claim_waits_for_no_job_that_another_has_locked(
    database: Database, clock: FakeClock
) -> None:
    """It may be claiming it. The others are had at once."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW), first_in(NOW, "other")])
    with transaction(database, "UPDATE cron_job SET paused = paused WHERE name = 'tick'"):
        claimed = await store.claim([after(0), after(0, "other")])
    assert [run.name for run in claimed] == ["other"]


async def test_a_claim_that_is_asked_for_waits(database: Database, clock: FakeClock) -> None:
    """Somebody waits for its answer: a lock that is gone in a moment is no answer."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    with transaction(database, "SELECT FROM cron_job FOR UPDATE") as other:
        task = asyncio.create_task(store.claim([after(0)], wait=True))
        async with waiting(task, database):
            other.rollback()
    assert [run.name for run in await task] == ["tick"]


@contextmanager
def before_locking(
    database: Database, act: Callable[[Database], Coroutine[Any, Any, object]]
) -> Iterator[None]:
    """In the block, another process does something right before a claim locks its rows."""

    def before(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "SKIP LOCKED" in statement:
            with closing(database_at(database.url)) as elsewhere:
                asyncio.run(act(elsewhere))

    engine = database._write_engine
    event.listen(engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", before)


async def test_a_claim_does_not_take_what_was_claimed_meanwhile(
    database: Database, clock: FakeClock
) -> None:
    """Though it was free when the transaction began."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    rival = partial(sql_store, clock=clock, owner="two")
    with before_locking(database, lambda elsewhere: rival(elsewhere).claim([after(0)])):
        assert await store.claim([after(0)]) == []
    [run] = await store.history("tick")
    assert run.owner == "two"


async def test_a_claim_does_not_take_a_lease_that_is_renewed_meanwhile(database: Database) -> None:
    """The clock is read when the rows are locked: by an earlier one, the lease would be longer than
    its owner can have meant, as if the clock had been set back."""
    one, two = (sql_store(database, SystemClock(), owner) for owner in ("one", "two"))
    await one.register([first_in(NOW)])
    run = await claim(two, delay=NOW)
    rival = partial(sql_store, clock=SystemClock(), owner="two")
    with before_locking(database, lambda elsewhere: rival(elsewhere).heartbeat([run])):
        assert await one.claim([after(1)]) == []


def test_rows_are_locked_in_one_order(database: Database) -> None:
    """Or two processes that end or renew the same runs would wait for each other, for ever: who
    waits for the first name has none of the others yet."""
    names = [f"job {number:02}" for number in range(20)]
    insert = text("INSERT INTO cron_job (name, next_run_at) VALUES (:name, 0)")
    database.write_here(lambda it: it.execute(insert, [{"name": name} for name in names]))

    async def try_it() -> list[tuple[Any, ...]]:
        with transaction(
            database, "SELECT FROM cron_job WHERE name = 'job 00' FOR UPDATE"
        ) as first:
            task = asyncio.create_task(database.write(lambda it: lock_rows(it, names)))
            async with waiting(task, database):
                free = await asyncio.to_thread(
                    query, database, "SELECT name FROM cron_job FOR UPDATE SKIP LOCKED"
                )
                first.rollback()
            assert await task == set(names)
            return free

    assert asyncio.run(try_it()) == [(name,) for name in names[1:]]


# Ends and heartbeats that meet a claim

CLAIM = "UPDATE cron_job SET run_no = run_no + 1, owner = 'two' WHERE name = 'tick'"


async def test_an_end_passes_by_what_another_has_locked(
    database: Database, clock: FakeClock
) -> None:
    """The others are recorded at once. Then it has become a claim: its row stays, to the letter."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW), first_in(NOW, "other")])
    runs = await store.claim([after(0), after(0, "other")])
    with transaction(database, CLAIM) as other:
        looks, lost = await store.finish([ok(run) for run in runs])
        assert ([look.name for look in looks], lost) == (["other"], set())
        other.commit()
    before = contents(database)
    _, lost = await store.finish([ok(runs[0])])
    assert lost == {"tick"}
    assert contents(database) == before


async def test_a_heartbeat_passes_by_what_another_has_locked(
    database: Database, clock: FakeClock
) -> None:
    """The others are renewed at once. Of it nothing is known, until it has become a claim."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW), first_in(NOW, "other")])
    runs = await store.claim([after(0), after(0, "other")])
    with transaction(database, CLAIM) as other:
        assert await store.heartbeat(runs) == {"other": True}
        other.commit()
    before = contents(database)
    assert await store.heartbeat(runs[:1]) == {"tick": False}
    assert contents(database) == before


async def test_a_locked_row_holds_up_no_other_job(clock: FakeClock, url: URL) -> None:
    """Neither a run of it that has ended, nor one that goes on: say, a session was never closed."""
    starts = list[float]()

    @job(every(seconds=5, jitter=0))
    async def locked(ctx: JobContext) -> None:
        await ctx.clock.sleep(1)

    @job(every(seconds=5, jitter=0))
    async def other(ctx: JobContext) -> None:
        starts.append(ctx.clock.monotonic())
        await ctx.clock.sleep(4)  # longer than its lease, which is renewed

    lock = "SELECT FROM cron_job WHERE name = 'locked' FOR UPDATE"
    async with replica(clock, url, locked, other, lease=3 * SECOND) as one:
        with transaction(one.database, lock):
            await clock.advance(seconds=10)
            assert starts == [0, 5, 10]
        await clock.advance(seconds=1)
        assert [run.outcome for run in await one.store.history("locked")] == ["ok"]


async def test_a_lease_of_which_nothing_is_known_is_not_trusted(clock: FakeClock, url: URL) -> None:
    """Its row stays locked, so no heartbeat renews it: the run is stopped before it ends."""
    ends = list[float]()

    @job(every(minutes=1, jitter=0))
    async def locked(ctx: JobContext) -> None:
        try:
            await ctx.clock.sleep(50)
        finally:
            ends.append(ctx.clock.monotonic())

    async with replica(clock, url, locked, lease=3 * SECOND) as one:
        with transaction(one.database, "SELECT FROM cron_job FOR UPDATE"):
            await clock.advance(seconds=3)
            assert ends == [2.5]


async def test_an_end_that_is_locked_out_at_the_stop_is_tried_again(
    clock: FakeClock, url: URL
) -> None:
    """Another process has the row for a moment: the outcome is not lost."""

    @job(every(minutes=1, jitter=0))
    async def locked(ctx: JobContext) -> None:
        await ctx.clock.sleep(5)

    async with replica(clock, url, locked) as one:
        with transaction(one.database, "SELECT FROM cron_job FOR UPDATE"):
            stop = asyncio.create_task(one.scheduler.stop())
            await clock.advance(seconds=5.5)
            assert not stop.done()
        await clock.run(stop)
        assert [run.outcome for run in await one.store.history("locked")] == ["ok"]


async def test_a_job_is_not_forgotten_while_another_claims_it(
    database: Database, clock: FakeClock
) -> None:
    """The claim goes first; then it is held."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    held = "UPDATE cron_job SET owner = 'two', lease_seconds = 30, lease_until = 1767225630000000"
    with transaction(database, held) as other:
        task = asyncio.create_task(store.forget("tick"))
        async with waiting(task, database):
            other.commit()
    assert await task is False
    assert (await look_at(store)).held_for == LEASE


# Rows that others make or change


async def test_a_row_that_two_make_is_as_the_first_has_made_it(
    database: Database, clock: FakeClock
) -> None:
    """Both have seen that there is none. The second changes nothing."""
    store = sql_store(database, clock)
    made = "INSERT INTO cron_job (name, next_run_at, run_no) VALUES ('tick', 1767225600000000, 7)"
    with transaction(database, made) as other:
        task = asyncio.create_task(store.register([first_in(DAY / 2)]))
        async with waiting(task, database):
            other.commit()
    [look] = await task
    assert (look.delay, look.run_no) == (NOW, 7)


async def test_a_row_that_is_forgotten_during_a_look_is_made_anew(
    database: Database, clock: FakeClock
) -> None:
    """It was there when the look began, locked by who forgot it."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    with transaction(database, "DELETE FROM cron_job") as other:

        def commit(statement: str) -> None:
            if "INSERT INTO cron_job" in statement:
                other.commit()

        with on_each_statement(database, commit):
            looks = await store.register([first_in(NOW), first_in(NOW, "new")])
    assert [look.name for look in looks] == ["tick", "new"]


async def test_a_due_time_is_not_corrected_while_another_claims_the_job(
    database: Database, clock: FakeClock
) -> None:
    """The next look will see what has become of it."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    await claim(store, delay=2 * DAY)  # later than the schedule can mean
    with transaction(database, "UPDATE cron_job SET paused = paused"):
        [look] = await store.register([first_in(NOW)])
    assert look.delay == 2 * DAY
    [look] = await store.register([first_in(NOW)])
    assert look.delay == DAY


# The fence


async def test_a_heartbeat_passes_while_a_run_writes(database: Database, clock: FakeClock) -> None:
    """The fence is the last statement: it locks the job's row for no longer than it must."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    run, gate, written = await claim(store), threading.Event(), threading.Event()

    def write(connection: Connection) -> None:
        create(connection)
        written.set()
        gate.wait(REAL_SECONDS_MAX)

    fence = store.fence(run)
    writing = asyncio.create_task(fence.write(write))
    await asyncio.to_thread(written.wait, REAL_SECONDS_MAX)
    assert await store.heartbeat([run]) == {"tick": True}
    gate.set()
    await writing
    assert query(database, "SELECT count FROM counts") == [(0,)]


async def test_a_claim_during_a_write_makes_it_a_stale_one(
    database: Database, clock: FakeClock
) -> None:
    """Nothing of it is committed: the fence comes after what was written."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    run = await claim(store)

    def write(connection: Connection) -> None:
        create(connection)
        with transaction(database, CLAIM) as other:
            other.commit()

    with pytest.raises(LeaseLost):
        await store.fence(run).write(write)
    assert query(database, "SELECT to_regclass('counts')") == [(None,)]


async def test_between_the_fence_and_the_commit_no_run_begins(
    database: Database, clock: FakeClock
) -> None:
    """The claim passes the job by."""
    one, two = (sql_store(database, clock, owner) for owner in ("one", "two"))
    await one.register([first_in(NOW)])
    await two.register([first_in(NOW)])
    run = await claim(one, delay=NOW)
    with database._write_engine.connect() as connection:
        one.fence(run).check(connection)
        await clock.advance(LEASE)
        assert await two.claim([after(1)]) == []
        connection.commit()
    assert len(await two.claim([after(1)])) == 1


async def test_a_statement_beyond_the_budget_is_interrupted(database: Database) -> None:
    """After a sixth of the lease, by the server; nothing stays of the write."""
    store = sql_store(database, SystemClock(), lease=3 * SECOND)
    await store.register([first_in(NOW)])

    def write(connection: Connection) -> None:
        create(connection)
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    with pytest.raises(WriteTooLong, match=r"wrote for 0\.\d s in one transaction: at most 0\.5 s"):
        await store.fence(await claim(store)).write(write)
    assert query(database, "SELECT to_regclass('counts')") == [(None,)]


# The clock


async def test_the_clock_that_counts_is_the_servers(database: Database) -> None:
    """What this machine thinks of the time changes nothing, in reads and in writes."""
    store, real = sql_store(database, SystemClock()), datetime.now(UTC)
    with time_machine.travel(real + timedelta(hours=1)):
        assert abs(await store.now() - real) < timedelta(minutes=1)
        await store.register([first_in(NOW)])
        run = await claim(store)
        assert abs(run.started_at - real) < timedelta(minutes=1)
        assert await store.heartbeat([run]) == {"tick": True}
        assert (await look_at(store)).held_for <= LEASE
        await store.finish([ok(run)])
        await store.check_in()
        [process] = await store.processes()
        assert abs(process.seen_at - real) < timedelta(minutes=1)


async def test_who_steers_jobs_goes_by_the_clock_of_the_server(database: Database) -> None:
    """A request from a machine whose clock is an hour ahead is no later than now."""
    store = sql_store(database, SystemClock())
    await store.register([first_in(DAY)])
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        await store.request("tick")
    [record] = await store.jobs()
    assert record.requested_at is not None
    assert record.requested_at <= await store.now()


async def test_who_forgets_a_job_goes_by_the_clock_of_the_server(database: Database) -> None:
    """To a machine whose clock is an hour ahead, too, a lease that holds is one that holds."""
    store = sql_store(database, SystemClock())
    await store.register([first_in(NOW)])
    await claim(store)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        assert not await store.forget("tick")


async def test_time_goes_on_within_a_transaction(database: Database) -> None:
    """It may have waited for a lock: the moment at which it began means nothing."""
    records = Records(database, SystemClock())
    first, second = database.write_here(lambda it: (records._now(it), records._now(it)))
    assert first < second


# Limits


@pytest.mark.parametrize(
    ("use", "function", "answer"),
    [("write_here", increment, None), ("read_here", read_count, 0)],
    ids=["write", "read"],
)
def test_a_lock_is_waited_for_in_vain(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    use: str,
    function: Callable[[Connection], Any],
    answer: object,
) -> None:
    """Such as a migration takes: not for ever; it may be tried again."""
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.05)
    database.write_here(create)
    with transaction(database, "LOCK TABLE counts"):
        with pytest.raises(OperationalError, match="lock timeout") as error:
            getattr(database, use)(function)
        assert database.may_be_waited_for(error.value)
    assert getattr(database, use)(function) == answer


@contextmanager
def soon_ended() -> Iterator[None]:
    """Transactions that begin in the block may be silent for a moment only. Those of who claims
    meanwhile begin after it: a busy machine makes them silent, too."""
    with patch("app.cron.postgres.IDLE_SECONDS", 0.2):
        yield


async def test_who_is_frozen_in_a_claim_keeps_the_job_for_some_seconds_only(
    database: Database, clock: FakeClock
) -> None:
    """Then the server ends its session: nothing was claimed, and another process claims it."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    with ExitStack() as stack:
        with soon_ended():
            frozen = stack.enter_context(transaction(database, CLAIM))
        assert (await claim_at_last(store, after(0))).run_no == 1
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            frozen.exec_driver_sql("SELECT 1")


async def claim_at_last(store: SqlStore, wish: Claim) -> Claimed:
    """Claim it again and again until it can be had."""
    deadline = time.monotonic() + REAL_SECONDS_MAX
    while not (claimed := await store.claim([wish])):
        assert time.monotonic() < deadline
    return claimed[0]


own_transaction = pytest.mark.parametrize("begin", [Session, Engine.connect])
"""For a test of a transaction on an engine of the job's own, which sets no limits."""

Begin = Callable[[Engine], AbstractContextManager[Any]]


@own_transaction
async def test_who_is_frozen_behind_the_fence_keeps_the_job_for_some_seconds_only(
    database: Database, clock: FakeClock, begin: Begin
) -> None:
    """The fence sets the limits that the engine may not have."""
    one, two = (sql_store(database, clock, owner) for owner in ("one", "two"))
    await one.register([first_in(NOW)])
    await two.register([first_in(NOW)])
    run = await claim(one, delay=NOW)
    await clock.advance(LEASE)
    engine = create_engine(database.url)
    with begin(engine) as frozen:
        with soon_ended():
            one.fence(run).check(frozen)
        assert (await claim_at_last(two, after(1))).run_no == 2
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            frozen.execute(text("SELECT 1"))
    engine.dispose()


@own_transaction
async def test_a_fence_waits_for_a_lock_in_vain(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, begin: Begin
) -> None:
    """Not for ever, on an engine of the job's own either."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    run = await claim(store)
    engine = create_engine(database.url)
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.05)
    with (
        transaction(database, CLAIM),
        begin(engine) as own,
        pytest.raises(OperationalError, match="lock timeout"),
    ):
        store.fence(run).check(own)
    engine.dispose()


@own_transaction
async def test_the_limits_of_a_fence_end_with_its_transaction(
    database: Database, clock: FakeClock, begin: Begin
) -> None:
    """The session is not ours, and behind a pooler it may be another process's next."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])
    fence, limit = store.fence(await claim(store)), "SHOW idle_in_transaction_session_timeout"
    engine = create_engine(database.url)
    with begin(engine) as own:
        before = own.execute(text(limit)).scalar_one()
        fence.check(own)
        assert own.execute(text(limit)).scalar_one() == "10s"
        own.commit()
        assert own.execute(text(limit)).scalar_one() == before
    engine.dispose()


async def test_an_urgent_write_waits_for_no_other(database: Database) -> None:
    """It has a connection of its own."""
    async with busy(database.write, WRITERS):
        assert await database.write(lambda _: "urgent", urgent=True) == "urgent"


async def test_what_is_urgent_has_threads_of_its_own(database: Database) -> None:
    """Their names tell in a stack what they are for."""

    def name(_: Connection) -> str:
        return threading.current_thread().name

    assert await database.write(name, urgent=True) == "database-urgent-writer-1"
    assert await database.read(name, urgent=True) == "database-urgent-reader-1"


def test_all_statements_of_a_read_see_the_same_moment(database: Database) -> None:
    """What is committed between two of them is seen by the next read. (On SQLite each statement
    sees its own.)"""
    database.write_here(create)

    def read_twice(connection: Connection) -> tuple[Any, Any]:
        before = read_count(connection)
        database.write_here(increment)
        return before, read_count(connection)

    assert database.read_here(read_twice) == (0, 0)
    assert database.read_here(read_count) == 1


def test_no_statement_is_kept_in_the_session(database: Database) -> None:
    """Behind a pooler the next transaction may have another one, which does not know it."""
    kept = "SELECT count(*) FROM pg_prepared_statements"

    def repeat(connection: Connection) -> Any:
        return [connection.exec_driver_sql(kept).scalar_one() for _ in range(20)]

    assert set(database.write_here(repeat)) == {0}


def test_an_engine_of_ones_own_is_like_the_apps(database: Database) -> None:
    """It notices that the server is gone, and keeps no statement in the session."""
    engine = create_engine(database.url, connect_args=database.connect_args)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.info.get_parameters()["tcp_user_timeout"] == "10000"
        assert driver.prepare_threshold is None
    engine.dispose()


def test_what_the_url_says_goes_before_what_the_app_says(url: URL) -> None:
    """In an engine of one's own too."""
    with closing(PostgresDatabase(url.update_query_dict({"keepalives_idle": "60"}))) as database:
        assert "keepalives_idle" not in database.connect_args
        assert "keepalives_count" in database.connect_args


# A server that goes, and comes back


async def test_after_a_restart_of_the_server_all_is_well(database: Database) -> None:
    """The connections that it has closed are noticed before they are used."""
    database.write_here(create)
    database.read_here(read_count)
    disconnect(database)
    database.write_here(increment)
    assert database.read_here(read_count) == 1


async def test_a_write_that_loses_its_connection_is_an_outage(
    database: Database, clock: FakeClock
) -> None:
    """It says why in a line, and nothing of it is done."""
    store = sql_store(database, clock)
    await store.register([first_in(NOW)])

    def lose(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.strip().startswith("INSERT INTO cron_run") or "cron_run (name" in statement:
            disconnect(database)

    event.listen(database._write_engine, "before_cursor_execute", lose)
    with pytest.raises(StoreUnavailable) as error:
        await store.claim([after(0)])
    assert "\n" not in str(error.value)
    event.remove(database._write_engine, "before_cursor_execute", lose)
    assert len(await store.claim([after(0)])) == 1


def test_tables_are_made_by_one_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no table yet that could be locked."""
    monkeypatch.setattr("app.cron.postgres.LOCK_SECONDS", 0.05)
    with database._write_engine.connect() as other:
        lock_schema(other)
        with pytest.raises(OperationalError) as error:
            database.write_here(upgrade_tables)
    assert database.may_be_waited_for(error.value)
    database.write_here(upgrade_tables)


# The URL


@pytest.mark.parametrize(
    "given",
    [
        "postgres://someone:secret@host:5433/name?sslmode=require",
        "postgresql://someone:secret@host:5433/name?sslmode=require",
        "postgresql+psycopg://someone:secret@host:5433/name?sslmode=require",
        "postgresql+asyncpg://someone:secret@host:5433/name?ssl=require",
        "postgresql+asyncpg://someone:secret@host:5433/name?ssl=true",
    ],
)
def test_the_forms_of_a_url_mean_the_same(url: URL, given: str) -> None:
    """As platforms give them, and as other drivers call the options. No name has the password."""
    database = PostgresDatabase(make_url(given))
    assert database.url == make_url(
        "postgresql+psycopg://someone:secret@host:5433/name?sslmode=require"
    )
    assert database.name == "Postgres host:5433/name"
    database.close()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("postgresql://host/name", "Postgres host/name"),
        ("postgresql://someone:secret@/name", "Postgres local socket/name"),
        ("postgresql://someone:secret@/name?host=/run/sockets", "Postgres /run/sockets/name"),
    ],
)
def test_a_name_tells_which_server_it_is(url: URL, given: str, name: str) -> None:
    """Also where it is on this machine."""
    with closing(PostgresDatabase(make_url(given))) as database:
        assert database.name == name


def test_how_strict_ssl_is_is_kept(url: URL) -> None:
    """Whichever driver the option was written for."""
    given = make_url("postgresql+asyncpg://host/name?ssl=verify-full")
    assert as_psycopg(given).query == {"sslmode": "verify-full"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda url: url.set(database="nothing"), id="no such database"),
        pytest.param(lambda url: url.set(username="nobody"), id="no such user"),
    ],
)
def test_a_server_that_refuses_is_told_in_a_line(url: URL, change: Callable[[URL], URL]) -> None:
    """Which one, and why; the database is closed."""
    database = PostgresDatabase(change(url).set(password="secret"))  # noqa: S106 -- no real one
    with pytest.raises(DatabaseError) as error:
        database.check()
    line = str(error.value)
    assert line.startswith(f"Postgres {url.host}:{url.port}/")
    assert "does not exist" in line
    assert "secret" not in line
    assert "\n" not in line
    with pytest.raises(RuntimeError, match=r"^Postgres .* is closed$"):
        database.read_here(read_count)


def test_a_server_that_does_not_answer_is_waited_for(url: URL) -> None:
    """It may be starting: the check passes, and a write says that it may be tried again."""
    with closing(PostgresDatabase(as_psycopg(url).set(port=1))) as database:
        database.check()
        with pytest.raises(OperationalError) as error:
            database.write_here(create)
        assert database.may_be_waited_for(error.value)


# What libpq, or the server, says where no connection is made


# A client's first message is so long at most; one that asks for TLS ends so.
GREETING_BYTES_MAX = 10_000
TLS_PLEASE = (80_877_103).to_bytes(4)

PASSWORD_PLEASE = b"R" + (8).to_bytes(4) + (3).to_bytes(4)


def fatal(words: str) -> bytes:
    """The message of a server that refuses."""
    fields = b"SFATAL\0VFATAL\0M" + words.encode() + b"\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4) + fields


@contextmanager
def server_that_says(answer: bytes) -> Iterator[int]:
    """The port of one that has no TLS, says this to each client, and closes the connection."""

    class Client(BaseRequestHandler):
        def handle(self) -> None:
            if self.request.recv(GREETING_BYTES_MAX).endswith(TLS_PLEASE):
                self.request.sendall(b"N")
                self.request.recv(GREETING_BYTES_MAX)
            self.request.sendall(answer)

    with TCPServer(("127.0.0.1", 0), Client) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def attempt(url: str) -> tuple[bool, str]:
    """Connect in vain: whether it may be waited for, and why it has failed."""
    with closing(PostgresDatabase(make_url(url))) as database:
        with pytest.raises(OperationalError) as error:
            database.write_here(create)
        return database.may_be_waited_for(error.value), reason_of(error.value)


@pytest.mark.parametrize(
    ("words", "may"),
    [
        ('password authentication failed for user "app"', False),
        ('database "app" does not exist', False),
        ('no pg_hba.conf entry for host "10.0.0.1", user "app", database "app"', False),
        ("the database system is starting up", True),
        ("the database system is shutting down", True),
        ("the database system is in recovery mode", True),
        ("the database system is not yet accepting connections", True),
        ("sorry, too many clients already", True),
        ('too many connections for role "app"', True),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("no more connections allowed (max_client_conn)", True),
        ("server login has been failing, try again later (server_login_retry)", True),
    ],
)
def test_a_server_is_waited_for_if_its_words_say_so(url: URL, words: str, may: bool) -> None:
    """Not if people must mend something."""
    with server_that_says(fatal(words)) as port:
        answer, reason = attempt(f"postgresql://app@127.0.0.1:{port}/app")
    assert reason.endswith(f"FATAL: {words}")
    assert answer == may


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "no password supplied"),
        ("?sslmode=requir", 'invalid sslmode value: "requir"'),
        ("?sslmode=require", "server does not support SSL, but SSL was required"),
        ("?ssl=true", "server does not support SSL, but SSL was required"),
        ("?channel_binding=on", 'invalid channel_binding value: "on"'),
        ("?channel_binding=require", "channel binding required but not supported"),
        ("?require_auth=scram-sha-256", "server requested a cleartext password"),
        ("?target_session_attrs=any-one", "invalid target_session_attrs value"),
        ("?port=99999", "invalid port number"),
    ],
)
def test_what_libpq_refuses_is_not_waited_for(url: URL, options: str, words: str) -> None:
    """It will not change its mind, though no server has said no."""
    with server_that_says(PASSWORD_PLEASE) as port:
        may, reason = attempt(f"postgresql://app@127.0.0.1:{port}/app{options}")
    assert words in reason
    assert not may


def test_a_session_of_the_wrong_kind_is_not_waited_for(url: URL) -> None:
    """Such as one that can write, where one is wanted that cannot."""
    wanted = url.update_query_dict({"target_session_attrs": "read-only"})
    may, reason = attempt(wanted.render_as_string(hide_password=False))
    assert "session is not read-only" in reason
    assert not may


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1:1", "Is the server running"),
        ("nowhere.invalid", "host"),
        ("/?host=/none", "Is the server running locally"),
    ],
)
def test_a_server_that_is_not_there_is_waited_for(url: URL, host: str, words: str) -> None:
    """Nobody listens on its port, it has no address or no socket: it may be starting."""
    may, reason = attempt(f"postgresql://{host}")
    assert words in reason
    assert may


def test_a_server_that_closes_the_connection_is_waited_for(url: URL) -> None:
    """As what stands before one that is not there yet does."""
    with server_that_says(b"") as port:
        may, reason = attempt(f"postgresql://app@127.0.0.1:{port}/app")
    assert "closed the connection unexpectedly" in reason
    assert may


@pytest.mark.parametrize(
    "words",
    [
        'could not translate host name "db" to address: Temporary failure in name resolution',
        "could not receive data from server: Connection reset by peer",
        "could not send SSL negotiation packet: Broken pipe",
        "SSL SYSCALL error: EOF detected",
        "SSL error: unexpected eof while reading",
        "no more connections allowed (max_client_conn)",
        "server login has been failing, try again later (server_login_retry)",
    ],
)
def test_what_cannot_be_had_here_is_waited_for(database: Database, words: str) -> None:
    """In the words of libpq and of poolers."""
    assert database.may_be_waited_for(OperationalError(None, None, Exception(words)))


def test_a_server_that_is_silent_is_waited_for(database: Database) -> None:
    """After some seconds psycopg waits for its answer no longer."""
    silence = ConnectionTimeout("connection timeout expired")
    assert database.may_be_waited_for(OperationalError(None, None, silence))
