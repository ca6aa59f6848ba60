"""The claim: of all processes that see a job due, one gets the run.

It is one transaction, which has locked the jobs' rows. What another process has locked is left to
it: it may be claiming it.

1. Pick the jobs that may run. Nobody has claimed one since this process looked, its run's number
   tells; it is due and not paused, or asked for; and no other run of it holds a lease.
2. Take them. The number, the owner, the lease and when the next run is due go into the job's row
   together, so a crash right after can neither lose nor repeat a due time.
3. Record the runs. One that had begun and was never ended is abandoned.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from .moment import to_microseconds, to_moment
from .statement import Statement
from .store import HISTORY_AGE, HISTORY_RUNS, HISTORY_RUNS_MAX, Claim, Claimed

PICK = Statement(
    """
    SELECT job.name, job.run_no, job.next_run_at, job.requested_at, job.failures
    FROM cron_job AS job JOIN batch ON job.name = batch.name
    WHERE job.run_no = batch.run_no
    AND (job.next_run_at <= :now AND NOT job.paused OR job.requested_at IS NOT NULL OR batch.forced)
    AND (
        job.owner IS NULL
        OR job.lease_until <= :now
        -- Longer than its owner can have meant: the wall clock has been set back meanwhile.
        OR job.lease_until > :now + job.lease_seconds * 1000000
    )
    """,
    batch="name, run_no, forced",
)

TAKE = Statement(
    """
    UPDATE cron_job
    SET run_no = run_no + 1, next_run_at = batch.next_run_at, requested_at = NULL, owner = :owner,
        lease_until = :lease_until, lease_seconds = :lease_seconds,
        abandoned_count = abandoned_count + CASE WHEN owner IS NULL THEN 0 ELSE 1 END
    FROM batch WHERE cron_job.name = batch.name
    """,
    batch="name, due_at, next_run_at",
)

ABANDON = Statement(
    """
    UPDATE cron_run SET outcome = 'abandoned' FROM batch
    WHERE cron_run.name = batch.name AND cron_run.run_no = batch.run_no - 1 AND outcome IS NULL
    """,
    batch="name, run_no",
)

RECORD = Statement(
    """
    INSERT INTO cron_run (name, run_no, due_at, started_at, owner)
    SELECT name, run_no, due_at, :now, :owner FROM batch
    """,
    batch="name, run_no, due_at",
)

PRUNE = Statement("""
    DELETE FROM cron_run WHERE name = :name AND (
        run_no <= :run_no - :runs_max OR run_no <= :run_no - :runs AND started_at < :too_old
    )
""")


def claim_due(
    connection: Connection,
    claims: Sequence[Claim],
    *,
    now: datetime,
    monotonic: float,
    owner: str,
    lease: timedelta,
) -> list[Claimed]:
    """Give `owner` each run that it may begin, in the order of the claims."""
    wishes = {claim.name: claim for claim in claims}
    values = {
        "now": to_microseconds(now),
        "owner": owner,
        "lease_until": to_microseconds(now + lease),
        "lease_seconds": lease // timedelta(seconds=1),
    }
    asked = json.dumps(
        [{"name": wish.name, "run_no": wish.run_no, "forced": wish.forced} for wish in claims]
    )
    rows = connection.execute(PICK.on(connection), {"batch": asked, **values})
    picked = {row.name: row for row in rows}
    if not picked:
        return []
    claimed = [
        _claimed(picked[name], now, monotonic, forced=wish.forced)
        for name, wish in wishes.items()
        if name in picked
    ]
    values["batch"] = json.dumps(
        [
            {
                "name": run.name,
                "run_no": run.run_no,
                "due_at": to_microseconds(run.due_at),
                "next_run_at": to_microseconds(wishes[run.name].next_run_at(now)),
            }
            for run in claimed
        ]
    )
    for statement in (TAKE, ABANDON, RECORD):
        connection.execute(statement.on(connection), values)
    for run in claimed:
        if run.run_no % HISTORY_RUNS == 0:  # now and then, so that it costs next to nothing
            connection.execute(
                PRUNE.on(connection),
                {
                    "name": run.name,
                    "run_no": run.run_no,
                    "runs": HISTORY_RUNS,
                    "runs_max": HISTORY_RUNS_MAX,
                    "too_old": to_microseconds(now - HISTORY_AGE),
                },
            )
    return claimed


def _claimed(row: Row[Any], now: datetime, monotonic: float, *, forced: bool) -> Claimed:
    due_at = min(to_moment(row.next_run_at), now)
    if row.requested_at is not None:
        due_at = min(to_moment(row.requested_at), due_at)
    return Claimed(
        row.name,
        row.run_no + 1,
        due_at,
        started_at=now,
        failures=row.failures,
        requested=forced or row.requested_at is not None,
        claimed_at=monotonic,
    )
