"""The fence: what a run writes is there only if the run was its job's last until the commit."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from app.cron.database import Database
from app.cron.fence import Fence, LeaseLost, WriteTooLong
from app.cron.sql_store import SqlStore
from app.cron.store import Claimed
from support import FakeClock, on_postgres, on_sqlite
from support.databases import cron_database
from support.process import REAL_SECONDS_MAX
from support.stores import (
    LEASE,
    LOSSES,
    NOW,
    after,
    claim,
    first_in,
    on_each_statement,
    sql_store,
)

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)

# What one transaction may take: a sixth of the lease.
BUDGET = 5 * SECOND

WRITE = "INSERT INTO note (line) VALUES ('a line')"

# It counts for several seconds, unless it is interrupted.
COUNT = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 20000000)
    SELECT count(*) FROM number
"""

Lose = Callable[[SqlStore, SqlStore, FakeClock, Claimed], Awaitable[None]]


class Base(DeclarativeBase):
    """What SQLAlchemy's sessions need."""


class Note(Base):
    """The table of what a run writes."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A database with a table of notes beside the engine's."""
    with cron_database(url) as database:
        database.write_here(Base.metadata.create_all)
        yield database


@pytest.fixture
def one(database: Database, clock: FakeClock) -> SqlStore:
    """The process that has the run."""
    return sql_store(database, clock, "one")


@pytest_asyncio.fixture
async def two(database: Database, clock: FakeClock) -> SqlStore:
    """Another process."""
    store = sql_store(database, clock, "two")
    await store.register([first_in(NOW)])
    return store


@pytest_asyncio.fixture
async def run(one: SqlStore) -> Claimed:
    """It is under way, like another job's; the next one is due already."""
    await one.register([first_in(NOW), first_in(NOW, "other")])
    [claimed, _] = await one.claim([after(0, delay=NOW), after(0, "other", NOW)])
    return claimed


@pytest.fixture
def fence(one: SqlStore, run: Claimed) -> Fence:
    """The run's."""
    return one.fence(run)


def write(connection: Connection) -> None:
    """Write a line."""
    connection.exec_driver_sql(WRITE)


def lines(database: Database) -> int:
    """How many lines are written."""
    return database.read_here(
        lambda connection: int(connection.exec_driver_sql("SELECT count(*) FROM note").scalar_one())
    )


# Writing


async def test_the_last_run_writes(fence: Fence, database: Database) -> None:
    """And gets the answer of its function."""

    def write_and_answer(connection: Connection) -> str:
        write(connection)
        return "the answer"

    assert await fence.write(write_and_answer) == "the answer"
    assert lines(database) == 1


async def test_a_def_job_writes_from_its_thread(fence: Fence, database: Database) -> None:
    """It waits for the commit."""
    await asyncio.to_thread(fence.write_here, write)
    assert lines(database) == 1


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_lost_run_writes_nothing(
    fence: Fence,
    database: Database,
    one: SqlStore,
    two: SqlStore,
    run: Claimed,
    clock: FakeClock,
    lose: Lose,
) -> None:
    """Nobody need have stopped it: it may have been frozen, and knows of nothing."""
    await lose(one, two, clock, run)
    with pytest.raises(
        LeaseLost, match=r"^tick run 1 is not the last any more; nothing is written$"
    ):
        await fence.write(write)
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(fence.write_here, write)
    assert lines(database) == 0


async def test_a_run_whose_lease_is_over_writes_until_another_begins(
    fence: Fence, database: Database, one: SqlStore, clock: FakeClock
) -> None:
    """It is still the last. What another job does is nothing to it."""
    await clock.advance(LEASE)
    await one.claim([after(1, "other")])
    await fence.write(write)
    assert lines(database) == 1


async def test_what_raises_writes_nothing(fence: Fence, database: Database) -> None:
    """The error is the function's own, in the database or not."""

    def write_and_raise(connection: Connection) -> None:
        write(connection)
        raise ValueError("the reason")

    def write_and_err(connection: Connection) -> None:
        write(connection)
        connection.exec_driver_sql("no SQL")

    with pytest.raises(ValueError, match="the reason"):
        await fence.write(write_and_raise)
    with pytest.raises(DBAPIError, match="syntax error"):
        await fence.write(write_and_err)
    assert lines(database) == 0


async def test_the_fence_is_the_last_statement(fence: Fence, database: Database) -> None:
    """Were it the first, a run could be lost while it writes, and its writes would stay."""
    statements = list[str]()
    with on_each_statement(database, statements.append):
        await fence.write(write)
    *_, written, fenced = statements
    assert written == WRITE
    assert fenced.startswith("UPDATE cron_job ")


@on_sqlite
async def test_another_run_begins_after_the_commit(
    fence: Fence, database: Database, url: URL, clock: FakeClock
) -> None:
    """Not while the write is under way, though the lease is over: what the newer run reads, no
    older one changes any more."""
    with cron_database(url) as elsewhere:
        two, gate, seen = sql_store(elsewhere, clock, "two"), clock.gate(), list[int]()
        await two.register([first_in(NOW)])
        await clock.advance(LEASE)

        def write_slowly(connection: Connection) -> None:
            write(connection)
            gate.wait()

        writing = asyncio.create_task(fence.write(write_slowly))
        await clock.settle()
        with on_each_statement(elsewhere, lambda _: seen.append(lines(database))):
            claiming = asyncio.create_task(two.claim([after(1)]))
            await asyncio.sleep(0)
            gate.open()
            await writing
            assert len(await claiming) == 1
        assert set(seen) == {1}


# In sessions and connections of one's own


@pytest.mark.parametrize("kind", [Session, Engine.connect])
@pytest.mark.parametrize("lost", [False, True], ids=["the last", "lost"])
async def test_the_fence_stands_in_ones_own_transaction_too(
    fence: Fence,
    database: Database,
    two: SqlStore,
    clock: FakeClock,
    kind: Callable[[Any], AbstractContextManager[Any]],
    lost: bool,
) -> None:
    """As the last statement before its commit."""
    await clock.advance(LEASE)
    if lost:
        await claim(two, 1)
    engine = create_engine(database.url)
    with kind(engine) as session:
        session.execute(text(WRITE))
        if lost:
            with pytest.raises(LeaseLost):
                fence.check(session)
        else:
            fence.check(session)
            session.commit()
    engine.dispose()
    assert lines(database) == (0 if lost else 1)


async def test_what_a_session_holds_back_comes_before_the_fence(
    fence: Fence, database: Database
) -> None:
    """Sessions write when they must. One that does not flush by itself would do so at the commit,
    after the fence."""
    engine, statements = create_engine(database.url), list[str]()
    event.listen(
        engine,
        "before_cursor_execute",
        lambda _, __, statement, *___: statements.append(statement.split()[0]),
    )
    with Session(engine, autoflush=False) as session:
        session.add(Note(line="a line"))
        fence.check(session)
        session.commit()
    engine.dispose()
    assert (statements[0], statements[-1]) == ("INSERT", "UPDATE")


class Awaited:
    """What an async session does: it runs a function with the session that it is made of."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run_sync(self, function: Callable[[Session], Any]) -> Any:
        return function(self._session)


async def test_for_an_async_session_the_fence_is_awaited(
    fence: Fence, database: Database, two: SqlStore, clock: FakeClock
) -> None:
    """Then it is the same."""
    engine = create_engine(database.url)
    with Session(engine) as session:
        session.execute(text(WRITE))
        await fence.check(Awaited(session))
        session.commit()
        await clock.advance(LEASE)
        await claim(two, 1)
        with pytest.raises(LeaseLost):
            await fence.check(Awaited(session))
    engine.dispose()
    assert lines(database) == 1


# The write budget


def stop(_: Connection) -> None:
    """Write nothing more."""


def try_to_write(connection: Connection) -> None:
    """Write a line, and take no notice of what is wrong."""
    with suppress(WriteTooLong):
        write(connection)


def slowly(clock: FakeClock, then: Callable[[Connection], None]) -> Any:
    """A function that writes, waits at its gate until the test opens that, and goes on."""
    gate = clock.gate()

    def write_slowly(connection: Connection) -> None:
        write(connection)
        gate.wait()
        then(connection)

    return write_slowly, gate


async def during(
    clock: FakeClock, seconds: timedelta, writing: Coroutine[Any, Any, Any], gate: Any
) -> None:
    """Let it take so long."""
    task = asyncio.ensure_future(writing)
    await clock.advance(seconds)
    gate.open()
    await task


async def test_a_write_may_take_its_budget(
    fence: Fence, database: Database, clock: FakeClock
) -> None:
    """To the microsecond."""
    function, gate = slowly(clock, write)
    await during(clock, BUDGET, fence.write(function), gate)
    assert lines(database) == 2


@pytest.mark.parametrize("then", [stop, write, try_to_write])
async def test_a_write_beyond_its_budget_writes_nothing(
    fence: Fence, database: Database, clock: FakeClock, then: Callable[[Connection], None]
) -> None:
    """Its next statement is refused, and if there is none, or if it does not care, the commit. The
    error says who it was, how long it took and what to do; the next write is as good as any."""
    function, gate = slowly(clock, then)
    with pytest.raises(WriteTooLong) as error:
        await during(clock, BUDGET + 0.6 * SECOND, fence.write(function), gate)
    assert str(error.value) == (
        "tick run 1 wrote for 5.6 s in one transaction: at most 5 s are allowed, for others "
        "wait meanwhile; write less at a time"
    )
    assert lines(database) == 0
    await fence.write(write)
    assert lines(database) == 1


async def test_beyond_its_budget_a_write_executes_no_statement(
    fence: Fence, database: Database, clock: FakeClock
) -> None:
    """Not even one, which might take long."""
    statements = list[str]()
    function, gate = slowly(clock, try_to_write)
    with on_each_statement(database, statements.append), pytest.raises(WriteTooLong):
        await during(clock, BUDGET + MICROSECOND, fence.write(function), gate)
    assert [each for each in statements if " INTO " in each or "cron_job" in each] == [WRITE]


class OwnClock(FakeClock):
    """It goes on with each look at it, by so many seconds, and when a test says so."""

    def __init__(self, seconds_per_look: float = 0) -> None:
        super().__init__()
        self.seconds = 0.0
        self._seconds_per_look = seconds_per_look

    def monotonic(self) -> float:
        self.seconds += self._seconds_per_look
        return self.seconds


@on_sqlite
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_statement_that_goes_beyond_the_budget_is_interrupted(
    database: Database, run: Claimed, *, threaded: bool
) -> None:
    """In the middle of its work. What others write later is not."""
    fence = sql_store(database, OwnClock(seconds_per_look=1), "one").fence(run)
    progress = list[int]()

    def write_without_end(connection: Connection) -> None:
        write(connection)
        progress.append(0)
        connection.exec_driver_sql(COUNT)
        progress.append(1)

    async def write_here(function: Callable[[Connection], None]) -> None:
        await asyncio.to_thread(lambda: fence.write_here(function))

    with pytest.raises(WriteTooLong, match="tick run 1 wrote for "):
        await (write_here if threaded else fence.write)(write_without_end)
    assert progress == [0]
    assert lines(database) == 0
    short = COUNT.replace("20000000", "200000")
    assert await database.write(lambda it: it.exec_driver_sql(short).scalar_one()) == 200_000


async def test_the_budget_is_not_for_the_time_before_a_write(
    database: Database, run: Claimed
) -> None:
    """It may have to wait for others; it keeps them waiting from its beginning only."""
    clock, leave = OwnClock(), threading.Event()
    fence = sql_store(database, clock, "one").fence(run)
    other = asyncio.create_task(database.write(lambda _: leave.wait(REAL_SECONDS_MAX)))
    waiting = asyncio.create_task(fence.write(write))
    await asyncio.sleep(0)
    clock.seconds = 100
    leave.set()
    await asyncio.gather(other, waiting)
    assert lines(database) == 1


@on_postgres
async def test_each_write_of_a_run_has_its_own_budget(
    fence: Fence, database: Database, clock: FakeClock
) -> None:
    """One that begins and ends meanwhile does not make a long one shorter."""
    function, gate = slowly(clock, stop)
    long = asyncio.create_task(fence.write(function))
    await clock.advance(BUDGET)
    await fence.write(write)
    await clock.advance(SECOND)
    assert fence.seconds_over() == 6
    gate.open()
    with pytest.raises(WriteTooLong, match=r"wrote for 6\.0 s"):
        await long
    assert lines(database) == 1


@on_postgres
async def test_of_several_writes_under_way_the_longest_counts(
    fence: Fence, clock: FakeClock
) -> None:
    """To whoever watches over the leases; when it has ended, the next."""
    (first, gate), (second, next_gate) = slowly(clock, stop), slowly(clock, stop)
    writes = [asyncio.create_task(fence.write(first))]
    await clock.advance(BUDGET)
    writes.append(asyncio.create_task(fence.write(second)))
    await clock.advance(BUDGET)
    assert fence.seconds_over() == 10
    gate.open()
    await clock.advance(SECOND)
    assert fence.seconds_over() == 6
    next_gate.open()
    for each in writes:
        with pytest.raises(WriteTooLong):
            await each
    assert fence.seconds_over() is None


async def test_a_write_under_way_tells_how_far_beyond_it_is(fence: Fence, clock: FakeClock) -> None:
    """To whoever watches over the leases: Python that sits there cannot be interrupted."""
    assert fence.seconds_over() is None
    function, gate = slowly(clock, stop)
    writing = asyncio.create_task(fence.write(function))
    await clock.advance(BUDGET)
    assert fence.seconds_over() is None
    await clock.advance(SECOND)
    assert fence.seconds_over() == 6
    gate.open()
    with pytest.raises(WriteTooLong):
        await writing
    assert fence.seconds_over() is None
