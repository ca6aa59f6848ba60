"""Processes that compete for the runs of one job: `rivals.py URL COUNTER RUNS PROCESSES`.

They begin at the same moment. In each, two stores, each as a process would have it, make the
tables, and claim as fast as they can until the job has had so many runs. Each run reads the number
in the file COUNTER, lets others do something, and writes one more: of two at once, one would be
lost.
"""

import asyncio
import os
import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import make_url

from app.cron.clock import SystemClock
from app.cron.sql_store import SqlStore
from app.cron.store import Claim, Finish, Registration
from app.cron.tables import upgrade_tables
from app.db import database_at


def at_once(now: datetime, _: datetime | None = None) -> datetime:
    """The job is always due."""
    return now


def read(counter: Path) -> int:
    """What the counter says."""
    return int(counter.read_text())


def write(counter: Path, count: int) -> None:
    """Make it say something else."""
    counter.write_text(f"{count}")


async def compete(url: str, counter: Path, runs: int, owner: str) -> None:
    """Claim and run until there have been enough."""
    with closing(database_at(make_url(url))) as database:
        await database.write(upgrade_tables)
        store = SqlStore(database, SystemClock(), owner=owner, lease=timedelta(seconds=60))
        [look] = await store.register([Registration("tick", at_once, at_once, steady=True)])
        while look.run_no < runs:
            wishes = [] if look.held_for else [Claim("tick", look.run_no, at_once)]
            for claimed in await store.claim(wishes):
                count = read(counter)
                await asyncio.sleep(0)
                write(counter, count + 1)
                now = claimed.started_at
                finish = Finish("tick", claimed.run_no, now, "ok", "", "", 0, at_once)
                while not (await store.finish([finish]))[0]:
                    """Another one has the row in its hands: it finds that it is claimed."""
            [look] = await store.look(["tick"])


async def rival(url: str, counter: Path, runs: int) -> None:
    """One of the processes: both stores, at the same time."""
    owners = (f"{os.getpid()}-{each}" for each in "ab")
    await asyncio.gather(*(compete(url, counter, runs, owner) for owner in owners))


def main(url: str, counter: str, runs: str, processes: str) -> int:
    """Fork them, once all is imported, and give the worst of their exit codes."""
    wait, go = os.pipe()
    rivals = []
    for _ in range(int(processes)):
        if not (pid := os.fork()):
            os.close(go)
            os.read(wait, 1)  # it ends when the parent closes `go`
            asyncio.run(rival(url, Path(counter), int(runs)))
            return 0
        rivals.append(pid)
    os.close(go)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in rivals)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
