"""Count the sessions of each user, every night, into a CSV file."""

import csv
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select

from app.cron import JobContext, crontab, job
from app.db import DatabaseDep
from app.sessions import sessions

ZONE = "Europe/Madrid"

REPORTS = Path("data/reports")
"""On the machine that has the run, seen from the working directory."""


@job(crontab("0 3 * * *", tz=ZONE))
def nightly_report(ctx: JobContext, db: DatabaseDep) -> str:
    """Write how many live sessions each user has. It is `def`, so it runs in a thread."""
    now = ctx.clock.now()
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / f"sessions-{now.astimezone(ZoneInfo(ZONE)):%Y-%m-%d}.csv"
    # Whoever looks at the folder sees a whole report or none.
    unfinished = report.with_suffix(f".{uuid4().hex}.unfinished")
    query = (
        select(sessions.c.user, func.count())
        .where(sessions.c.expires_at > now)
        .group_by(sessions.c.user)
        .order_by(sessions.c.user)
    )

    def write(connection: Connection) -> str:
        users = 0
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["user", "sessions"])
            for row in connection.execute(query):
                if ctx.stopping:
                    return f"stopped after {users} users"
                writer.writerow(row)
                users += 1
        unfinished.replace(report)
        return f"{users} users in {report.name}"

    try:
        return db.read_here(write)
    finally:
        unfinished.unlink(missing_ok=True)
