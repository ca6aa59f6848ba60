"""An app that is served in this process: how to talk to it, and to see what it has done."""

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, closing
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.cron.clock import SystemClock
from app.db import database_at, upgrade_schema
from app.sessions import sessions
from app.settings import Settings

from .app import running
from .clock import FakeClock


@asynccontextmanager
async def serving(app: FastAPI, clock: FakeClock) -> AsyncIterator[AsyncClient]:
    """Run the app, and give a client. Its requests carry the lifespan's state, as a server's do."""
    state: dict[str, Any] = {}
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def keep_state(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app) as shared:
            state.update(shared or {})
            yield

    async def with_state(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "state": state.copy()}, receive, send)

    app.router.lifespan_context = keep_state
    async with (
        running(app, clock),
        AsyncClient(transport=ASGITransport(with_state), base_url="http://service") as client,
    ):
        yield client


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
