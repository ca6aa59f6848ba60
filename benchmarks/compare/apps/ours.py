"""The generated service, with a job to compare."""

import asyncio
import os

from app.cron import JobContext, every, job
from app.db import DatabaseDep
from app.main import create_app
from fastapi import FastAPI
from sqlalchemy import Connection, text

from benchmarks.compare.apps.work import (
    IN_THREAD,
    INSERT,
    SECONDS,
    WORK_SECONDS,
    note,
    recorded,
    work_in_thread,
)
from tools.records import with_record

DUE = text("SELECT due_at FROM cron_run WHERE name = 'work' AND run_no = :run_no")

schedule = every(seconds=SECONDS, jitter=0)


def due_of(connection: Connection, ctx: JobContext) -> str:
    """Read for when the run was due: a job is not told."""
    return str(connection.execute(DUE, {"run_no": ctx.run_no}).scalar_one())


@job(schedule, name="work")
async def work_due(ctx: JobContext, db: DatabaseDep) -> None:
    """Take a moment, then write a row in a fenced transaction."""
    with recorded(await db.read(lambda connection: due_of(connection, ctx))) as name:
        await asyncio.sleep(WORK_SECONDS)
        await ctx.write(lambda connection: connection.exec_driver_sql(INSERT, (os.getpid(),)))
        note("written", name)


@job(schedule, name="work")
def work_due_in_thread(ctx: JobContext, db: DatabaseDep) -> None:
    """Work in a thread, and do not ask `ctx.stopping`."""
    work_in_thread(db.read_here(lambda connection: due_of(connection, ctx)))


def service() -> FastAPI:
    """Make the app."""
    return with_record(create_app(jobs=[work_due_in_thread if IN_THREAD else work_due]), note)
