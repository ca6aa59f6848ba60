"""A process that competes with others for the runs of one job: `rival.py URL COUNTER RUNS`.

It says that it is ready, and waits until the file `go` is in its folder. Then two stores, each as a
process would have it, make the tables, and claim as fast as they can until the job has had so many
runs. Each run reads the number in the file COUNTER, lets others do something, and writes one more:
of two at once, one would be lost.
"""

import asyncio
import os
import sys
import time
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


async def main() -> None:
    """Both stores, at the same time."""
    url, counter, runs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    owners = (f"{os.getpid()}-{each}" for each in "ab")
    await asyncio.gather(*(compete(url, counter, runs, owner) for owner in owners))


if __name__ == "__main__":
    print("ready", flush=True)
    while not Path("go").exists():
        time.sleep(0.001)
    asyncio.run(main())
