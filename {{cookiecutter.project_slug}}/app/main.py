"""Where all is joined, and only here: settings, database, scheduler and routes become an app."""

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from socket import gethostname
from typing import Any
from uuid import uuid4

from fastapi import FastAPI

from app.cron.clock import Clock, RandomSource, SystemClock, seeded
from app.cron.database import Database, DatabaseError
from app.cron.inject import Injected, prepare
from app.cron.job import Function, JobError
from app.cron.schedule import in_words
from app.cron.scheduler import Scheduler
from app.cron.sql_store import SqlStore
from app.cron.sqlite import SqliteDatabase
from app.db import open_database, remark_on_platform, upgrade_schema
from app.jobs import JOBS
from app.ops.errors import add_error_handlers
from app.ops.health import router as health_router
from app.ops.logs import set_up_logs
from app.sessions import router as sessions_router
from app.settings import Settings, SettingsError, read_settings

log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    *,
    jobs: Sequence[Function] = JOBS,
    clock: Clock | None = None,
    random: RandomSource | None = None,
) -> FastAPI:
    """The app: `uvicorn app.main:create_app --factory`. Tests bring their own clock and chance.

    What is wrong with the settings, the database or a job ends the process here, in one line.
    """
    try:
        settings = settings or read_settings()
        set_up_logs(settings)
        open_database(settings).close()
        clock = clock or SystemClock()
        return _join(settings, jobs, clock, random or seeded(settings.cron_seed))
    except (SettingsError, DatabaseError, JobError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _join(
    settings: Settings, jobs: Sequence[Function], clock: Clock, random: RandomSource
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with closing(open_database(settings)) as database:
            await upgrade_schema(database, clock)
            state: dict[str, Any] = {"database": database, "clock": clock}
            owner = f"{gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
            async with Scheduler(
                prepared,
                store=SqlStore(database, clock, owner=owner, lease=settings.lease),
                clock=clock,
                random=random,
                state=state,
                grace=settings.grace,
                threads=settings.cron_threads,
                claims=settings.cron_enabled,
            ) as scheduler:
                state["scheduler"] = scheduler
                _log_start(settings, prepared, database, scheduler)
                yield state

    app = FastAPI(title="Service", lifespan=lifespan)
    prepared = prepare(jobs, app)
    app.include_router(sessions_router)
    app.include_router(health_router)
    add_error_handlers(app)
    return app


def _log_start(
    settings: Settings, jobs: Sequence[Injected], database: Database, scheduler: Scheduler
) -> None:
    count = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    if not settings.cron_enabled:
        log.info("cron: off, %s not started by this process, %s", count, database.name)
        return
    due = scheduler.next_due()
    log.info(
        "cron: %s, %s%s, lease %s%s",
        count,
        database.name,
        " (this machine only)" if isinstance(database, SqliteDatabase) else "",
        in_words(settings.lease),
        f", next {due[0]} in {in_words(due[1])}" if due else "",
    )
    if remark := remark_on_platform(database, os.environ):
        log.warning("cron: %s", remark)
    for job in (injected.job for injected in jobs):
        if remark := job.schedule.remark():
            log.info("cron: %s, %s: %s", job.name, job.schedule, remark)
