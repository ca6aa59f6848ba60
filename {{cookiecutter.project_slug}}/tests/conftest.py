"""Fixtures that every test may ask for."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import URL

from app.cron.clock import RandomSource, seeded
from app.cron.database import Database
from app.main import create_app
from app.settings import Settings
from overrides import OVERRIDES
from support import Advance, FakeClock, RunJob, Runs, Service, served
from support.databases import close_outside, empty_url
from support.postgres import postgres_database, postgres_server
from support.process import VARIABLES


@pytest_asyncio.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """A clock that stands at the first of January 2026 until the test moves it."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no port comes from the environment of who runs the tests, no file from their
    folder."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A database on a Postgres server, for one test at a time."""
    with postgres_server() as server, postgres_database(server) as url:
        yield url
        close_outside()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> URL:
    """Where an empty database is: every test that asks for it runs on both."""
    return empty_url(request)


@pytest.fixture
def settings(no_settings: None, url: URL) -> Settings:
    """The default settings, on a new database."""
    return Settings(database_url=url.render_as_string(hide_password=False))


# The whole service: ask for what the test needs of it, and all of it runs


@pytest.fixture
def random() -> RandomSource:
    """The chance of the app and its jobs: the same in each run of the tests."""
    return seeded("a test")


@pytest_asyncio.fixture
async def service(
    settings: Settings, clock: FakeClock, random: RandomSource
) -> AsyncIterator[Service]:
    """The app with all of JOBS, its lifespan running. The test is made once for each database.

    Jobs run by themselves only while the test lets time pass.
    """
    app = create_app(settings, clock=clock, random=random)
    app.dependency_overrides |= OVERRIDES
    async with served(app, clock) as service:
        yield service


@pytest.fixture
def app(service: Service) -> FastAPI:
    """The app, such as for `app.dependency_overrides[get_client] = lambda: fake`."""
    return service.app


@pytest.fixture
def client(service: Service) -> AsyncClient:
    """Asks the endpoints: `await client.get("/health/ready")`."""
    return service.client


@pytest.fixture
def db(service: Service) -> Database:
    """The app's database, empty but for its tables."""
    return service.database


@pytest.fixture
def run_job(service: Service) -> RunJob:
    """Runs a job now: `run = await run_job(expire_sessions)` has its outcome, note and error."""
    return service.run_job


@pytest.fixture
def runs(service: Service) -> Runs:
    """What a job has done, the oldest run first: `await runs("expire_sessions")`."""
    return service.runs


@pytest.fixture
def advance(service: Service) -> Advance:
    """Lets time pass, and jobs that fall due run: `await advance(minutes=5)`."""
    return service.clock.advance


@pytest.fixture(autouse=True)
def restored_logs() -> Iterator[None]:
    """`create_app` sets up the log of its process; after the test it is as it was before."""
    logger = logging.getLogger("app")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
