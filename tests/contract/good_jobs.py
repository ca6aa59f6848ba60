"""Jobs as they should be, of every kind: the contract must find nothing in them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

from app.cron import JobContext, crontab, every, job
from app.db import DatabaseDep
from app.sessions import ClockDep, sessions
from fastapi import Depends
from httpx2 import AsyncClient, MockTransport, Request, Response
from sqlalchemy import Connection, create_engine, delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from tests.contract.mistakes import one_session

GOOD: dict[Callable[..., Any], Callable[[Connection], object]] = {}
"""The jobs, and what each finds in the database."""


def good(
    *schedule: Any, arrange: Callable[[Connection], object] = one_session, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the function as a job, and list it."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        GOOD[job(*(schedule or [every(minutes=5)]), **options)(function)] = arrange
        return function

    return declare


@good(crontab("0 3 * * *", tz="Europe/Madrid"), timeout=None)
async def waits_and_writes(ctx: JobContext) -> str:
    """Take longer than a cancel may, with the time and chance of the run, and log."""
    begun, number = ctx.clock.now(), ctx.random.randint(1, 1_000_000)
    ctx.log.info("it is %s", begun)
    await ctx.clock.sleep(30)
    await ctx.write(lambda it: it.execute(update(sessions).values(expires_at=begun)))
    try:
        await ctx.clock.sleep(30)
    finally:
        await ctx.clock.sleep(0.1)
    return f"{number} after {ctx.clock.now() - begun}"


@asynccontextmanager
async def a_lock(clock: ClockDep) -> AsyncIterator[asyncio.Lock]:
    """Give something that takes a moment to get, and another to give back."""
    await clock.sleep(0.1)
    lock = asyncio.Lock()
    async with lock:
        yield lock
    await clock.sleep(0.1)


async def get_lock(clock: ClockDep) -> AsyncIterator[asyncio.Lock]:
    """Give it to a job."""
    async with a_lock(clock) as lock:
        yield lock


@good()
async def has_a_teardown(
    ctx: JobContext, db: DatabaseDep, lock: Annotated[asyncio.Lock, Depends(get_lock)]
) -> str:
    """Depend on what waits in its teardown."""
    assert lock.locked()
    await ctx.clock.sleep(1)
    count = await db.read(lambda it: it.scalar(select(func.count()).select_from(sessions)))
    return f"{count} sessions"


@good()
async def has_tasks(ctx: JobContext) -> None:
    """Write in several tasks of a TaskGroup."""

    async def rename(number: int) -> None:
        await ctx.clock.sleep(number)
        one = update(sessions).where(sessions.c.id == f"{number}").values(user="ben")
        await ctx.write(lambda it: it.execute(one))

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(rename(number))


@good()
async def has_a_thread(db: DatabaseDep) -> int:
    """Leave to threads what blocks, and what computes."""

    def work() -> int:
        time.sleep(30)
        return db.read_here(lambda it: len(it.execute(select(sessions)).all()))

    return await asyncio.to_thread(work) + await asyncio.to_thread(sum, range(1_000_000))


def end_session(number: int, connection: Connection) -> None:
    """Delete a session, if it is there."""
    connection.execute(delete(sessions).where(sessions.c.id == f"{number}"))


@good()
def writes_in_a_thread(ctx: JobContext) -> str:
    """Look up in each round of `def`, and sleep in between."""
    for number in range(600):
        if ctx.stopping:
            return f"stopped at {number}"
        time.sleep(1)
        if number % 200 == 0:
            ctx.write(partial(end_session, number // 200))
    return "all"


def get_session(db: DatabaseDep) -> Iterator[Session]:
    """Give a session of its own."""
    engine = create_engine(db.url, connect_args=db.connect_args)
    with Session(engine) as session:
        yield session
    engine.dispose()


@good()
def has_a_session(ctx: JobContext, session: Annotated[Session, Depends(get_session)]) -> None:
    """Write in transactions of its own, each of which ends with the fence."""
    for user in session.scalars(select(sessions.c.user).distinct()).all():
        session.execute(update(sessions).where(sessions.c.user == user).values(user=user.upper()))
        ctx.fence(session)
        session.commit()


@good(each_process=True)
async def warms_a_cache(db: DatabaseDep) -> str:
    """Run in each process: there is no row, and no rival."""
    rows = await db.read(lambda it: it.execute(select(sessions.c.id)).all())
    return f"{len(rows)} in the cache"


@good(timeout=timedelta(seconds=50))
async def tries_again(ctx: JobContext) -> str:
    """Catch the end of a wait that has a limit: that is no cancel."""
    with suppress(TimeoutError):
        async with ctx.clock.timeout(5):
            await ctx.clock.sleep(100)
    with suppress(ConnectionError):
        raise ConnectionError
    return "tried"


def odd_session(connection: Connection) -> None:
    """Somebody else has put one there that the app cannot read."""
    connection.execute(text("INSERT INTO sessions (id, user, expires_at) VALUES (1, 'a', 'soon')"))


@good(arrange=odd_session)
async def only_reads(db: DatabaseDep) -> str:
    """Count, and change nothing."""
    count = select(func.count()).select_from(sessions)
    return f"{await db.read(lambda it: it.execute(count).scalar_one())} sessions"


def two_sessions(connection: Connection) -> None:
    """One of them ends half a minute after the run begins."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for seconds in (30, 3_600):
        ends = begin + timedelta(seconds=seconds)
        connection.execute(insert(sessions).values(id=f"{seconds}", user="ana", expires_at=ends))


@good(arrange=two_sessions)
async def copies_what_is_alive(ctx: JobContext) -> None:
    """Leave a row of each that is alive when it runs: fewer, when it is taken over."""
    alive = select(sessions.c.id.concat("+"), sessions.c.user, sessions.c.expires_at).where(
        sessions.c.expires_at > ctx.clock.now(), ~sessions.c.id.endswith("+")
    )
    copy = (
        insert(sessions).prefix_with("OR IGNORE").from_select(["id", "user", "expires_at"], alive)
    )
    await ctx.write(lambda it: it.execute(copy))
    await ctx.clock.sleep(1)


async def get_client() -> AsyncIterator[AsyncClient]:
    """Give a client of a service that is far away."""
    async with AsyncClient(base_url="http://users.example") as client:
        yield client


async def get_stand_in() -> AsyncIterator[AsyncClient]:
    """Give one that answers by itself."""

    async def answer(_: Request) -> Response:
        await asyncio.sleep(0)
        return Response(200, json=[{"id": "1", "user": "cho"}, {"id": "new", "user": "dan"}])

    async with AsyncClient(
        base_url="http://users.example", transport=MockTransport(answer)
    ) as client:
        yield client


OVERRIDES = {get_client: get_stand_in}


@good()
async def fetches_and_upserts(
    ctx: JobContext, client: Annotated[AsyncClient, Depends(get_client)]
) -> str:
    """Ask a service, and have its rows afterwards, whether they were there before or not."""
    rows = (await client.get("/users")).json()
    ids = [row["id"] for row in rows]

    def upsert(connection: Connection) -> None:
        connection.execute(delete(sessions).where(sessions.c.id.in_(ids)))
        for row in rows:
            connection.execute(insert(sessions).values(**row, expires_at=ctx.clock.now()))

    await ctx.write(upsert)
    return f"{len(rows)} users"
