"""An app that is served in this process: how to talk to it, and to see what it has done."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.cron.clock import SystemClock
from app.cron.database import Database
from app.cron.job import Function, collect
from app.cron.records import Records
from app.cron.scheduler import Scheduler
from app.cron.store import Run
from app.db import database_at, upgrade_schema
from app.sessions import sessions
from app.settings import Settings

from .app import running
from .clock import FakeClock

RunJob = Callable[[Function], Awaitable[Run]]
Runs = Callable[[str], Awaitable[list[Run]]]
Advance = Callable[..., Awaitable[None]]
"""What the fixtures `run_job`, `runs` and `advance` are."""


@dataclass(frozen=True)
class Service:
    """An app whose lifespan runs, and what a test does with it."""

    app: FastAPI
    client: AsyncClient
    database: Database
    clock: FakeClock
    scheduler: Scheduler
    store: Records

    async def run_job(self, job: Function) -> Run:
        """Run one of the app's jobs now, and give what has become of it: outcome, note, error."""
        [declared] = collect([job])
        await self.clock.run(self.scheduler.run(declared.name))
        return (await self.runs(declared.name))[-1]

    async def runs(self, name: str) -> list[Run]:
        """The runs of a job, the oldest first."""
        return await self.clock.run(self.store.history(name))


@asynccontextmanager
async def served(app: FastAPI, clock: FakeClock) -> AsyncIterator[Service]:
    """Run the app. Requests of the client carry the lifespan's state, as a server's do."""

    async def with_state(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    async with (
        running(app, clock) as state,
        AsyncClient(transport=ASGITransport(with_state), base_url="http://service") as client,
    ):
        database: Database = state["database"]
        store = Records(database, clock)
        yield Service(app, client, database, clock, state["scheduler"], store)


@asynccontextmanager
async def serving(app: FastAPI, clock: FakeClock) -> AsyncIterator[AsyncClient]:
    """Run the app, and give a client."""
    async with served(app, clock) as service:
        yield service.client


async def insert_sessions(settings: Settings, counts: dict[str, int], expires_at: datetime) -> None:
    """Give each user so many sessions, in a database that is made where there is none."""
    rows = [
        {"id": uuid4().hex, "user": user, "expires_at": expires_at}
        for user, count in counts.items()
        for _ in range(count)
    ]
    with closing(database_at(settings.url)) as database:
        await upgrade_schema(database, SystemClock())
        await database.write(lambda connection: connection.execute(sessions.insert(), rows))


def notes(caplog: pytest.LogCaptureFixture, job: str) -> list[str]:
    """How the runs of the job have ended, each without the word about the next one."""
    return [
        line.getMessage().split(": ", 1)[1].split("; next")[0]
        for line in caplog.records
        if getattr(line, "outcome", None) and getattr(line, "job", None) == job
    ]
