"""Fixtures that every test may ask for."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import URL

from app.settings import Settings
from support import FakeClock
from support.databases import empty_url
from support.postgres import postgres_database, postgres_server


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """A clock that stands at the first of January 2026 until the test moves it."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes from the environment of who runs the tests, no file from their folder."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A database on a Postgres server, for one test at a time."""
    with postgres_server() as server, postgres_database(server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> URL:
    """Where an empty database is: every test that asks for it runs on both."""
    return empty_url(request)


@pytest.fixture
def settings(no_settings: None, url: URL) -> Settings:
    """The default settings, on a new database."""
    return Settings(database_url=url.render_as_string(hide_password=False))


@pytest.fixture(autouse=True)
def restored_logs() -> Iterator[None]:
    """`create_app` sets up the log of its process; after the test it is as it was before."""
    logger = logging.getLogger("app")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
