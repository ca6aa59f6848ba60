"""What is true of every job, whatever it does: yours too, from the moment it is listed."""

import importlib
import pkgutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

import app.jobs
from app.cron.job import Function, Job, collect
from app.jobs import JOBS
from app.sessions import sessions
from overrides import OVERRIDES
from support.contract import CLAUSES, Subject, complaints

# Yours: what the contract needs to know of your jobs


def add_data(connection: Connection) -> None:
    """What each job finds in the database. Add rows of your tables: a job that has nothing to do
    shows little."""
    begin, minute = datetime(2026, 1, 1, tzinfo=UTC), timedelta(minutes=1)
    users = ["ana", "ben", "guest"]
    rows = [  # three have expired when the run begins
        {"id": f"{number}", "user": users[number % 3], "expires_at": begin + minute * number}
        for number in range(-3, 5)
    ]
    connection.execute(sessions.insert(), rows)


EXCEPT: dict[tuple[str, str], str] = {}
"""Clauses that a job need not keep, and why: {("my_job", "is_repeatable"): "it draws ids"}."""


@pytest.mark.parametrize("job", JOBS, ids=lambda job: str(job.__name__))
async def test_a_job_keeps_the_contract(job: Function, tmp_path: Path, no_settings: None) -> None:
    """What each clause asks for stands in `support/contract.py`."""
    subject = await Subject.of(job, tmp_path, add_data, OVERRIDES)
    name = subject.bench.job.name
    clauses = [clause for clause in CLAUSES if (name, clause) not in EXCEPT]
    found = await complaints(subject, clauses)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_exceptions_are_of_jobs_and_clauses_that_there_are() -> None:
    """A name with a slip in it would change nothing, and nobody would see that."""
    names = {job.name for job in collect(JOBS)}
    for (name, clause), reason in EXCEPT.items():
        assert name in names
        assert clause in CLAUSES
        assert reason


def declared() -> list[Job]:
    """The jobs that the files in app/jobs declare."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(app.jobs.__path__, "app.jobs.")
    ]
    marks = [
        getattr(value, "__cron_job__", None) for file in modules for value in vars(file).values()
    ]
    return [mark for mark in marks if isinstance(mark, Job)]


@pytest.mark.parametrize("job", declared(), ids=lambda job: job.name)
def test_a_job_that_is_declared_is_listed(job: Job) -> None:
    """Or it would never run, and nobody would see that."""
    assert job.function in JOBS, "add it to JOBS in app/jobs/__init__.py, or it never runs"


def test_the_jobs_can_be_run() -> None:
    """Their names, schedules and timeouts make sense, and no two have the same name."""
    assert len(collect(JOBS)) == len(JOBS)
