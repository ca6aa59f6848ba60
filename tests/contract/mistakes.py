"""Mistakes that people make in jobs, for the contract in the service's tests to find.

A line that a complaint must name ends with `# here`: one of them, where there are several.
"""

import asyncio
import random
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import getsourcelines
from threading import Event, Thread
from typing import Annotated, Any

from app.cron import JobContext, every, job
from app.db import DatabaseDep
from app.sessions import sessions
from fastapi import Depends
from httpx2 import AsyncClient
from sqlalchemy import (
    Connection,
    Insert,
    create_engine,
    delete,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session


def one_session(connection: Connection) -> None:
    """Put one into the database."""
    connection.execute(insert(sessions).values(id="1", user="ana", expires_at=datetime.now(UTC)))


def a_short_session(connection: Connection) -> None:
    """Put one into it that ends half a minute after the run begins."""
    ends = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    connection.execute(insert(sessions).values(id="1", user="ana", expires_at=ends))


def many_sessions(connection: Connection) -> None:
    """More than one statement may change."""
    now = datetime.now(UTC)
    rows = [{"id": f"{number}", "user": "ana", "expires_at": now} for number in range(6_000)]
    connection.execute(insert(sessions), rows)


def insert_once(row: dict[str, Any]) -> Insert:
    """Insert a session, unless one with its id is there."""
    return insert(sessions).prefix_with("OR IGNORE").values(row)


@dataclass
class Mistake:
    """A job with a mistake in it, the clause that must find it, and what that must advise."""

    function: Callable[..., Any]
    clause: str
    remedy: str
    arrange: Callable[[Connection], object]

    @property
    def places(self) -> list[str]:
        """The lines of this file of which one must be named."""
        lines, first = getsourcelines(self.function)
        marked = [index for index, line in enumerate(lines) if "# here" in line]
        return [f"mistakes.py:{first + index}" for index in marked]


MISTAKES: list[Mistake] = []


def mistake(
    clause: str,
    remedy: str,
    *,
    arrange: Callable[[Connection], object] = one_session,
    **options: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the function as a job, and list it."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        job(every(minutes=5), **options)(function)
        MISTAKES.append(Mistake(function, clause, remedy, arrange))
        return function

    return declare


# The event loop is blocked


@mistake("never_blocks_the_loop", "Make it a `def` job")
async def sleeps() -> None:
    """Call `time.sleep` in `async def`."""
    time.sleep(0.001)  # here


@mistake("never_blocks_the_loop", "Make it a `def` job")
async def asks_a_server() -> None:
    """Ask by a synchronous HTTP call in `async def`, and catch whatever comes of it."""
    with suppress(Exception):
        urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)  # here


@mistake("never_blocks_the_loop", "Make it a `def` job")
async def asks_a_server_that_is_away() -> None:
    """Ask by a synchronous HTTP call, on a machine from which nobody can be asked."""
    urllib.request.urlopen("http://nowhere.invalid/", timeout=1)  # here


@mistake("never_blocks_the_loop", "Make it a `def` job, or give that to `asyncio.to_thread`")
async def computes(ctx: JobContext) -> None:
    """Compute for 200 ms on the event loop."""
    await ctx.clock.sleep(1)  # here
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    await ctx.clock.sleep(1)


@mistake("never_blocks_the_loop", "Make it a `def` job, or give that to `asyncio.to_thread`")
async def computes_in_a_task(ctx: JobContext) -> None:
    """Do the same in a task of its own."""

    async def compute() -> None:
        await ctx.clock.sleep(1)  # here
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(compute())


# A cancel is not taken for one


@mistake("can_be_cancelled", "raise CancelledError again")
async def swallows_its_cancel(ctx: JobContext) -> None:
    """Take a cancel for the end of a wait."""
    with suppress(asyncio.CancelledError):
        await ctx.clock.sleep(10)  # here


@mistake("can_be_cancelled", "raise CancelledError again")
async def catches_everything(ctx: JobContext) -> None:
    """Use a bare `except`."""
    for _ in range(3):
        try:
            await ctx.clock.sleep(10)  # here
        except:  # noqa: E722 -- the mistake
            continue


@mistake("can_be_cancelled", "do not wait in `except` and `finally`")
async def cleans_up_for_long(ctx: JobContext) -> None:
    """Clean up for ten seconds when it is cancelled."""
    try:
        await ctx.clock.sleep(1)  # here
    finally:
        await ctx.clock.sleep(10)


# It has a time and a chance of its own


@mistake("is_repeatable", "chance, that of new ids too, from `ctx.random`")
async def rolls_dice() -> str:
    """Draw from the module `random`."""
    return f"waited {random.random()}"  # here


@mistake("is_repeatable", "Take time from `ctx.clock`")
async def looks_at_the_wall(ctx: JobContext) -> None:
    """Ask `datetime.now()`."""
    now = datetime.now(UTC)  # here
    await ctx.write(lambda it: it.execute(update(sessions).values(expires_at=now)))


# A run is not the only one


@mistake("can_be_killed", "Write it so that twice is as once")
async def counts_twice(ctx: JobContext) -> None:
    """Increment, and do not remember that it was done."""
    more = sessions.c.user.concat(literal("+"))
    await ctx.write(lambda it: it.execute(update(sessions).values(user=more)))
    await ctx.clock.sleep(1)  # here


@mistake("can_be_taken_over", "make the key of a row of what the row is about")
async def has_a_row_for_each_moment(ctx: JobContext) -> None:
    """Insert what is there already if the clock has stood still."""
    row = {"id": ctx.clock.now().isoformat(), "user": "ana", "expires_at": ctx.clock.now()}
    await ctx.write(lambda it: it.execute(insert_once(row)))
    await ctx.clock.sleep(1)  # here


@mistake("can_be_taken_over", "make the key of a row of what the row is about")
async def has_a_row_for_each_chance(ctx: JobContext) -> None:
    """Insert what is there already if the same numbers are drawn."""
    row = {"id": f"{ctx.random.random()}", "user": "ana", "expires_at": ctx.clock.now()}
    await ctx.write(lambda it: it.execute(insert_once(row)))
    await ctx.clock.sleep(1)  # here


@mistake("can_be_taken_over", "take what it finds half done")
async def has_a_lock_of_its_own(ctx: JobContext, db: DatabaseDep) -> None:
    """Keep others away by a row, which a run that is killed leaves behind."""
    mine = {"id": "lock", "user": f"{ctx.random.random()}", "expires_at": ctx.clock.now()}
    await ctx.write(lambda it: it.execute(insert_once(mine)))
    owner = select(sessions.c.user).where(sessions.c.id == "lock")
    if await db.read(lambda it: it.execute(owner).scalar_one()) != mine["user"]:
        raise RuntimeError("somebody else is at work")  # here
    await ctx.write(lambda it: it.execute(delete(sessions).where(sessions.c.id == "lock")))


@mistake("can_be_taken_over", "has another time, number and chance")
async def gives_way_to_the_dead(ctx: JobContext, db: DatabaseDep) -> None:
    """Leave all to who has marked it, though that run may be no more."""
    mark = f"{ctx.random.random()}"
    unmarked = update(sessions).where(sessions.c.user == "ana")
    await ctx.write(lambda it: it.execute(unmarked.values(user=mark)))
    users = await db.read(lambda it: it.scalars(select(sessions.c.user)).all())  # here
    if mark in users:
        row = {"id": "result", "user": "ben", "expires_at": datetime(2026, 1, 1, tzinfo=UTC)}
        await ctx.write(lambda it: it.execute(insert_once(row)))


@mistake("can_be_taken_over", "If it lacks rows", arrange=a_short_session)
async def needs_what_soon_ends(ctx: JobContext, db: DatabaseDep) -> None:
    """Fail when it is run a minute later."""
    alive = select(sessions.c.id).where(sessions.c.expires_at > ctx.clock.now())
    await db.read(lambda it: it.execute(alive).scalar_one())  # here


@mistake("is_fenced", "`ctx.fence(session)` as the last thing before your commit")
def commits_before_the_fence(ctx: JobContext, db: DatabaseDep) -> None:
    """Commit, and ask the fence then."""
    engine = create_engine(db.url)
    with Session(engine) as session:
        session.execute(update(sessions).values(user="somebody"))  # here
        session.commit()
        ctx.fence(session)
        session.commit()
    engine.dispose()


@mistake("holds_up_no_writer", "as `delete_in_chunks` does", arrange=many_sessions)
async def deletes_all_at_once(ctx: JobContext) -> None:
    """Delete all in one big DELETE."""

    def delete_all(connection: Connection) -> None:
        connection.execute(delete(sessions))  # here

    await ctx.write(delete_all)


# It does not come to an end


@mistake("completes", "end its loop or its wait")
def never_ends() -> None:
    """Loop for ever, without a look at `ctx.stopping`."""
    while True:  # here
        pass  # here


@mistake("completes", "end its loop or its wait")
async def never_ends_on_the_loop(ctx: JobContext) -> None:
    """Loop for ever, with a bare `except` that nothing gets out of."""
    while True:
        try:
            await ctx.clock.sleep(60)  # here
        except:  # noqa: E722 -- the mistake
            continue


@mistake("completes", "end its loop or its wait", timeout=None)
async def waits_for_ever() -> None:
    """Wait for what nobody sets."""
    await asyncio.Event().wait()  # here


@mistake("notices_a_stop", "look at `ctx.stopping` in each round, and return")
def does_not_look_up() -> None:
    """Ignore a stop, with much to do in `def`."""
    for _ in range(1_000):  # here
        time.sleep(0.1)  # here


# It lacks something


@mistake("completes", "A migration is missing")
async def lacks_a_table(ctx: JobContext) -> None:
    """Write into a table that no migration has made."""
    await ctx.write(lambda it: it.execute(text("INSERT INTO rates VALUES ('EUR')")))  # here


@mistake("completes", "by `.bindparams(bindparam('at', type_=Moment))`")
async def writes_what_cannot_be_read(ctx: JobContext, db: DatabaseDep) -> None:
    """Upsert by a text that knows nothing of a column's type."""
    upsert = text(
        "INSERT INTO sessions (id, user, expires_at) VALUES ('1', 'ana', :at) "
        "ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at"
    )
    await db.read(lambda it: it.execute(text("SELECT * FROM sessions")).all())
    await ctx.write(lambda it: it.execute(upsert, {"at": ctx.clock.now().isoformat()}))  # here
    await db.read(lambda it: it.execute(text("SELECT * FROM sessions")).all())


@mistake("completes", "Take time from `ctx.clock`")
async def knows_no_zone(ctx: JobContext) -> None:
    """Ask `datetime.now()` without a zone."""
    now = datetime.now()
    await ctx.write(lambda it: it.execute(update(sessions).values(expires_at=now)))  # here


@mistake("completes", "Give it in OVERRIDES what stands for others' services")
async def reaches_out() -> None:
    """Ask a service of others for real."""
    async with AsyncClient() as client:
        await client.get("http://127.0.0.1:9/")  # here


@mistake("completes", "Give it in OVERRIDES what stands for others' services")
def reaches_out_in_a_thread() -> None:
    """Do the same in `def`."""
    urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)  # here


# It leaves something behind


@mistake("completes", "write `await` before it")
async def forgets_to_wait(ctx: JobContext) -> None:
    """Forget an `await`."""
    ctx.clock.sleep(1)  # type: ignore[unused-coroutine] # here


@mistake("completes", "await it, or use a TaskGroup")
async def starts_a_task(ctx: JobContext) -> None:
    """Start a task that nobody awaits."""
    asyncio.create_task(ctx.clock.sleep(1000))  # noqa: RUF006 # here


def a_session(db: DatabaseDep) -> Iterator[Session]:
    """Give a session, and forget it."""
    engine = create_engine(db.url)
    yield Session(engine)


@mistake("completes", "in the dependency after its `yield`")
def has_no_teardown(session: Annotated[Session, Depends(a_session)]) -> None:
    """Depend on what closes nothing."""
    session.execute(update(sessions).values(user="somebody"))  # here


@mistake("completes", "wait for its end")
def starts_a_thread() -> None:
    """Start a thread that goes on."""
    Thread(target=Event().wait, args=[0.5], name="mine").start()  # here
