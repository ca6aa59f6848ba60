"""fastapi-crons, with locks in the database as its README has it under "Running Multiple Workers".

Its state is in SQLite, as is its default. How long a lock lasts is set by CRON_LOCK_TTL.
"""

from fastapi import FastAPI
from fastapi_crons import CronConfig, Crons, DistributedLockManager
from fastapi_crons.locking.sqlalchemy import SQLAlchemyLockBackend
from sqlalchemy import create_engine

from benchmarks.compare.apps.work import (
    DATABASE,
    IN_THREAD,
    SECONDS,
    note,
    work,
    work_in_thread,
)
from tools.records import with_record


def service() -> FastAPI:
    """Make the app."""
    app = FastAPI()
    engine = create_engine(f"sqlite:///{DATABASE}")
    manager = DistributedLockManager(SQLAlchemyLockBackend(engine), CronConfig())
    crons = Crons(app, lock_manager=manager)

    def due() -> str:
        [job] = crons.get_jobs()
        return str(job.next_run)  # moved on only once the body has ended

    async def work_due() -> None:
        await work(due())

    def work_due_in_thread() -> None:
        work_in_thread(due())

    declare = crons.cron(f"* * * * * */{SECONDS}", name="work")  # the sixth field is of seconds
    declare(work_due_in_thread if IN_THREAD else work_due)
    return with_record(app, note)
