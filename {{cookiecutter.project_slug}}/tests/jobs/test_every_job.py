"""What is asked of every job in JOBS."""

import importlib
import pkgutil

import pytest

import app.jobs
from app.cron.job import Job, collect
from app.jobs import JOBS


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
    """Add it to JOBS in app/jobs/__init__.py, or it never runs."""
    assert job.function in JOBS


def test_the_jobs_can_be_run() -> None:
    """Their names, schedules and timeouts make sense, and no two have the same name."""
    assert len(collect(JOBS)) == len(JOBS)
