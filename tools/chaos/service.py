"""The service that is put to the proof: jobs that record what they do, four of them in `service`.

Usage: DATABASE_URL=... CHAOS_RECORDS=FILE python -m tools.chaos.service, which makes the tables;
then, with the same settings, `uvicorn tools.chaos.service:service --factory`, as often as you like.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.cron import JobContext, every, job
from app.cron.clock import SystemClock
from app.cron.fence import LeaseLost
from app.db import open_database, upgrade_schema
from app.main import create_app
from app.settings import read_settings
from fastapi import FastAPI
from sqlalchemy import Connection, text

from tools.chaos.records import Event
from tools.records import Recorder, with_record

# The trigger puts each claim between the writes, so a write by a run that is not the last shows.
TABLE = """
    CREATE TABLE chaos_effect (
        id {id}, what TEXT NOT NULL, job TEXT NOT NULL, run_no BIGINT NOT NULL, pid BIGINT,
        owner TEXT, body TEXT NOT NULL DEFAULT '', wall DOUBLE PRECISION DEFAULT ({now})
    )
"""
CLAIM = """
    INSERT INTO chaos_effect (what, job, run_no, owner)
    VALUES ('claim', new.name, new.run_no, new.owner);
"""
TABLES = {
    "sqlite": (
        TABLE.format(id="INTEGER PRIMARY KEY", now="(julianday('now') - 2440587.5) * 86400"),
        f"CREATE TRIGGER chaos_claim AFTER UPDATE OF run_no ON cron_job BEGIN {CLAIM} END",
    ),
    "postgresql": (
        TABLE.format(
            id="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            now="extract(epoch FROM clock_timestamp())",
        ),
        f"""
        CREATE FUNCTION chaos_claim() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN {CLAIM} RETURN NULL; END $$
        """,
        """
        CREATE TRIGGER chaos_claim AFTER UPDATE OF run_no ON cron_job
        FOR EACH ROW EXECUTE FUNCTION chaos_claim()
        """,
    ),
}

WRITE = text("""
    INSERT INTO chaos_effect (what, job, run_no, pid, body)
    VALUES ('write', :job, :run_no, :pid, :body)
""")

# Longer than any test: such a run ends only by what is done to its process.
LONG_SECONDS = 600

record = Recorder[Event](Path(os.environ["CHAOS_RECORDS"]))


def note(what: str, job: str = "", body: str = "", amount: float = 0) -> None:
    """Record an event of this process."""
    record(Event(what, os.getpid(), job, body, amount=amount))


class Body:
    """One execution of a job's body, which writes a row at a time in fenced transactions."""

    def __init__(self, job: str, ctx: JobContext) -> None:
        """Give it a name of its own."""
        # What takes longer, or lets other threads go first, would make it begin later than it does.
        self.name = f"{os.getpid()}-{time.monotonic_ns()}"
        self.confirmed = 0
        """How many rows it has been told are written."""
        self._ctx = ctx
        self._values = {"job": job, "run_no": ctx.run_no, "pid": os.getpid(), "body": self.name}

    async def write(self) -> None:
        """Add a row."""
        await self._ctx.write(self._insert)
        self.confirmed += 1

    def write_here(self) -> None:
        """Add a row, in `def`."""
        self._ctx.write(self._insert)
        self.confirmed += 1

    def _insert(self, connection: Connection) -> None:
        connection.execute(WRITE, self._values)


@contextmanager
def recorded(job: str, ctx: JobContext) -> Iterator[Body]:
    """Record that a body starts, and how it ends."""
    body = Body(job, ctx)
    note("start", job, body.name)
    how = "error"
    try:
        yield body
        how = "end"
    except asyncio.CancelledError:
        how = "cancelled"
        raise
    except LeaseLost:
        how = "refused"
        raise
    finally:
        note(how, job, body.name, body.confirmed)


@job(every(seconds=1))
async def quick(ctx: JobContext) -> None:
    """Write, work for a fifth of a second, write again."""
    with recorded("quick", ctx) as body:
        await body.write()
        await ctx.clock.sleep(0.2)
        await body.write()


@job(every(seconds=1))
def thread(ctx: JobContext) -> None:
    """Write, work, write again, in a thread, which nobody can cancel."""
    with recorded("thread", ctx) as body:
        body.write_here()
        threading.Event().wait(0.1)  # time.sleep fails with libfaketime
        body.write_here()


@job(every(seconds=3))
async def fails(ctx: JobContext) -> None:
    """Write, and fail every other time."""
    with recorded("fails", ctx) as body:
        await body.write()
        if ctx.run_no % 2:
            raise ValueError("every other time")


@job(every(seconds=5, jitter=0))
async def steady(ctx: JobContext) -> None:
    """Write, every five seconds."""
    with recorded("steady", ctx) as body:
        await body.write()


@job(every(seconds=2))
async def long(ctx: JobContext) -> None:
    """Work until something happens, and be due again soon."""
    with recorded("long", ctx):
        await ctx.clock.sleep(LONG_SECONDS)


@job(every(minutes=1, jitter=0.05))
async def rare(ctx: JobContext) -> None:
    """Work until something happens, and be due again much later."""
    with recorded("rare", ctx):
        await ctx.clock.sleep(LONG_SECONDS)


def service() -> FastAPI:
    """Make the app whose four jobs are judged: runs that end, by themselves or with an error."""
    return with_record(create_app(jobs=[quick, thread, fails, steady]), note)


def long_service() -> FastAPI:
    """Make an app with one job, whose runs do not end."""
    return with_record(create_app(jobs=[long]), note)


def rare_service() -> FastAPI:
    """Make another one, whose job is also rarely due."""
    return with_record(create_app(jobs=[rare]), note)


async def make_tables() -> None:
    """Make the tables of the app, of the engine, and ours."""
    with closing(open_database(read_settings())) as database:
        await upgrade_schema(database, SystemClock())

        def make(connection: Connection) -> None:
            for statement in TABLES[connection.dialect.name]:
                connection.exec_driver_sql(statement)

        await database.write(make)


if __name__ == "__main__":
    asyncio.run(make_tables())
