"""An app that is served in this process: a client to talk to it, a look into its database."""

import sqlite3
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, closing
from typing import Any

from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

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


def query(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database file, from outside the app."""
    with closing(sqlite3.connect(settings.database_path, isolation_level=None)) as database:
        return database.execute(statement).fetchall()
