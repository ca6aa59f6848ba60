"""APScheduler 3: an AsyncIOScheduler in the lifespan, its jobs in a SQLAlchemyJobStore on SQLite.

Its FAQ says that processes cannot share a job store; workers that do, or that have one each, are
what its users come to it with. Else all options are at their defaults.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from fastapi import FastAPI

from benchmarks.compare.apps.work import (
    DATABASE,
    IN_THREAD,
    SECONDS,
    note,
    work,
    work_in_thread,
)
from tools.records import with_record

due: ContextVar[str] = ContextVar("due")


class Due(logging.Handler):
    """Reads for when a run was due from the line logged just before its body: it is not told."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it for the body."""
        if record.msg.startswith("Running job") and isinstance(record.args, tuple):
            due.set(str(record.args[1]))


async def work_due() -> None:
    """Do the work. The store keeps the name of this function."""
    await work(due.get())


def work_due_in_thread() -> None:
    """Do the work in a thread."""
    work_in_thread(due.get())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Run the scheduler while the app is up."""
    scheduler = AsyncIOScheduler()
    scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{DATABASE}"))
    function = work_due_in_thread if IN_THREAD else work_due
    scheduler.add_job(function, "interval", seconds=SECONDS, id="work", replace_existing=True)
    scheduler.start()
    yield
    scheduler.shutdown()


def service() -> FastAPI:
    """Make the app."""
    log = logging.getLogger("apscheduler.executors")
    log.setLevel(logging.INFO)
    log.addHandler(Due())
    return with_record(FastAPI(lifespan=lifespan), note)
