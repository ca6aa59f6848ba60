"""The fixtures of tests/conftest.py, as a test of a job or an endpoint uses them."""

from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import select

from app.cron.database import Database
from app.db import get_database
from app.jobs import JOBS
from app.jobs.expire_sessions import expire_sessions
from app.sessions import sessions
from support import Advance, RunJob, Runs


async def test_a_job_is_run_when_the_test_says(client: AsyncClient, run_job: RunJob) -> None:
    """What it found it was given by a request, and its note says what it did."""
    await client.post("/sessions", json={"user": "ada", "ttl_seconds": 1})
    run = await run_job(expire_sessions)
    assert (run.run_no, run.outcome, run.note, run.error) == (1, "ok", "deleted 0", "")


async def test_a_job_is_given_what_stands_for_its_dependency(app: FastAPI, run_job: RunJob) -> None:
    """Here what fails: the error of the run is told too."""

    def broken() -> Database:
        raise ConnectionError("no database today")

    app.dependency_overrides[get_database] = broken
    run = await run_job(expire_sessions)
    assert (run.outcome, run.error) == ("error", "ConnectionError: no database today")


async def test_jobs_run_by_themselves_as_time_passes(
    client: AsyncClient, advance: Advance, runs: Runs
) -> None:
    """Soon after the start, and then after each interval."""
    await client.post("/sessions", json={"user": "ada", "ttl_seconds": 60})
    assert await runs("expire_sessions") == []
    await advance(minutes=13)
    notes = [run.note for run in await runs("expire_sessions")]
    assert notes in (["deleted 0", "deleted 1"] + ["deleted 0"] * more for more in (0, 1, 2))


async def test_the_database_is_that_of_the_app(client: AsyncClient, db: Database) -> None:
    """What a request has written is found in it."""
    await client.post("/sessions", json={"user": "ada", "ttl_seconds": 60})
    assert await db.read(lambda it: it.execute(select(sessions.c.user)).scalars().all()) == ["ada"]


async def test_no_job_has_run_before_time_passes(runs: Runs) -> None:
    """So what a test puts into the database is there when it lets a job run."""
    for job in JOBS:
        assert await runs(job.__name__) == []
