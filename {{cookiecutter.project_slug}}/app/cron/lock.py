"""Locks of jobs' rows, for transactions of several statements on Postgres.

The order of names keeps two transactions from waiting for each other for ever. The clock is read
after the lock, not before: of what another process has written meanwhile it would be too early.
"""

import json
from collections.abc import Iterable

from sqlalchemy import Connection

from .statement import Statement, is_postgres

LOCK = """
    SELECT job.name FROM cron_job AS job JOIN batch ON job.name = batch.name
    ORDER BY job.name FOR UPDATE OF job
"""
WAIT = Statement(LOCK, batch="name")
PASS = Statement(f"{LOCK} SKIP LOCKED", batch="name")


def lock_rows(connection: Connection, names: Iterable[str], *, wait: bool = True) -> set[str]:
    """Keep the jobs' rows from others until the commit. Returns the names of those that are there
    and, unless it should `wait`, that no other transaction has.

    On SQLite who writes has the whole file already, so all are returned.
    """
    names = set(names)
    if not is_postgres(connection):
        return names
    batch = json.dumps([{"name": name} for name in names])
    statement = WAIT if wait else PASS
    return set(connection.execute(statement.on(connection), {"batch": batch}).scalars())
