"""The store in the database: any number of processes share it, and each due time goes to one."""

import json
from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from .claim import claim_due
from .clock import Clock
from .database import Database
from .fence import Fence
from .lock import lock_rows
from .moment import moment_or_none, to_microseconds, to_moment
from .records import Records, is_held
from .statements import (
    ADD,
    CHECK_IN,
    CHECK_OUT,
    END,
    END_RUN,
    FORGET_PROCESSES,
    HEARTBEAT,
    LOOK,
    LOST,
    OWN,
    SET_DUE,
)
from .store import Claim, Claimed, Finish, Look, Registration

SECOND = timedelta(seconds=1)

# What one transaction of a run may take of a lease: a heartbeat must get through in time.
WRITE_BUDGET = 1 / 6

# A process that was last seen so long ago is forgotten.
PROCESS_AGE = timedelta(days=7)


class SqlStore(Records):
    """A `Store` whose rows all processes with the same database share.

    `owner` names the process, and no other ever. `lease` is what its claims hold for; other
    processes may have another one.
    """

    def __init__(self, database: Database, clock: Clock, *, owner: str, lease: timedelta) -> None:
        super().__init__(database, clock)
        if lease % SECOND:
            raise ValueError(f"the lease is {lease}: it must be whole seconds")
        self.lease = lease
        self._owner = owner
        self._jobs: dict[str, Registration] = {}

    async def register(self, jobs: Sequence[Registration]) -> list[Look]:
        self._jobs |= {job.name: job for job in jobs}

        def register(connection: Connection) -> list[Look]:
            free = lock_rows(connection, (job.name for job in jobs), wait=False)
            return self._put_right(connection, self._now(connection), jobs, free)

        return await self._write(register)

    async def look(self, names: Iterable[str]) -> list[Look]:
        jobs = [self._jobs[name] for name in names]

        def look(found: Sequence[Row[Any]], now: datetime) -> list[Look] | None:
            rows = {row.name: row for row in found}
            if any(_right_due(rows.get(job.name), job, now) for job in jobs):
                return None
            return [_look(rows[job.name], now) for job in jobs]

        looks = await self._read(LOOK, look, batch=_names_of(jobs))
        return await self.register(jobs) if looks is None else looks

    async def claim(self, claims: Sequence[Claim], *, wait: bool = False) -> list[Claimed]:
        def claim(connection: Connection) -> list[Claimed]:
            free = lock_rows(connection, (each.name for each in claims), wait=wait)
            return claim_due(
                connection,
                [each for each in claims if each.name in free],
                monotonic=self._clock.monotonic(),  # before `now`, which can take a while to come
                now=self._now(connection),
                owner=self._owner,
                lease=self.lease,
            )

        return await self._write(claim)

    async def heartbeat(self, runs: Sequence[Claimed]) -> dict[str, bool]:
        def renew(connection: Connection) -> dict[str, bool]:
            free = lock_rows(connection, (run.name for run in runs), wait=False)
            now = self._now(connection)
            values = {
                "batch": _runs(run for run in runs if run.name in free),
                "owner": self._owner,
                "now": to_microseconds(now),
                "lease_until": to_microseconds(now + self.lease),
                "lease_seconds": self.lease // SECOND,
            }
            renewed = set(connection.execute(HEARTBEAT.on(connection), values).scalars())
            passed = [run for run in runs if run.name not in free]
            locked = self._own(connection, passed) if passed else {}
            return {run.name: run.name in renewed for run in runs if run.name not in locked}

        return await self._write(renew)

    async def finish(self, finishes: Sequence[Finish]) -> tuple[list[Look], set[str]]:
        def finish(connection: Connection) -> tuple[list[Look], set[str]]:
            free = lock_rows(connection, (end.name for end in finishes), wait=False)
            now = self._now(connection)
            due = self._own(connection, finishes)
            ends = [end for end in finishes if end.name in free or end.name not in due]
            ended = _json(
                {
                    "name": end.name,
                    "run_no": end.run_no,
                    "finished_at": to_microseconds(end.finished_at),
                    "outcome": end.outcome,
                    "note": end.note,
                    "error": end.error,
                    "failures": end.failures,
                    "next_run_at": to_microseconds(end.next_run_at(now, due[end.name])),
                }
                for end in ends
                if end.name in due
            )
            for statement in (END, END_RUN):
                connection.execute(statement.on(connection), {"batch": ended})
            lost = set[str]()
            if len(due) < len(finishes):  # not all of the rest: an unanswered end is sent again
                values = {"batch": _runs(ends), "owner": self._owner}
                gone = connection.execute(LOST.on(connection), values)
                lost = set(gone.scalars())
            jobs = [self._jobs[end.name] for end in ends]
            return self._put_right(connection, now, jobs, free), lost

        return await self._write(finish)

    async def check_in(self, absence: tuple[datetime, datetime] | None = None) -> None:
        def check_in(connection: Connection) -> None:
            now = self._now(connection)
            since, until = map(to_microseconds, absence) if absence else (None, None)
            values = {"absent_from": since, "absent_until": until, "now": to_microseconds(now)}
            connection.execute(CHECK_IN.on(connection), {"owner": self._owner, **values})
            too_old = to_microseconds(now - PROCESS_AGE)
            connection.execute(FORGET_PROCESSES.on(connection), {"too_old": too_old})

        await self._write(check_in)

    async def check_out(self) -> None:
        await self._change(CHECK_OUT, owner=self._owner)

    def fence(self, claimed: Claimed) -> Fence:
        return Fence(
            self._database,
            self._clock,
            name=claimed.name,
            run_no=claimed.run_no,
            owner=self._owner,
            budget_seconds=self.lease.total_seconds() * WRITE_BUDGET,
        )

    def _own(self, connection: Connection, runs: Iterable[Claimed | Finish]) -> dict[str, datetime]:
        """Those of the runs that are still its own, and when their jobs are due next."""
        values = {"batch": _runs(runs), "owner": self._owner}
        rows = connection.execute(OWN.on(connection), values)
        return {row.name: to_moment(row.next_run_at) for row in rows}

    def _put_right(
        self,
        connection: Connection,
        now: datetime,
        jobs: Sequence[Registration],
        free: Container[str],
    ) -> list[Look]:
        """Make the rows that are missing, let none that is `free` be due too late, and look at them
        all."""
        rows = _rows(connection, jobs)
        due = {job.name: _right_due(rows.get(job.name), job, now) for job in jobs}
        wrong = [
            {"name": name, "next_run_at": to_microseconds(moment)}
            for name, moment in due.items()
            if moment is not None and (name in free or name not in rows)
        ]
        if wrong:
            new = _json(each for each in wrong if each["name"] not in rows)
            late = _json(each for each in wrong if each["name"] in rows)
            connection.execute(ADD.on(connection), {"batch": new})
            connection.execute(SET_DUE.on(connection), {"batch": late})
            # Again, for what another transaction has made meanwhile, or forgotten.
            return self._put_right(connection, now, jobs, free=())
        return [_look(rows[job.name], now) for job in jobs]


def _rows(connection: Connection, jobs: Iterable[Registration]) -> dict[str, Row[Any]]:
    rows = connection.execute(LOOK.on(connection), {"batch": _names_of(jobs)})
    return {row.name: row for row in rows}


def _right_due(row: Row[Any] | None, job: Registration, now: datetime) -> datetime | None:
    """When the job should be due, where its row says nothing, or later than can be meant."""
    if row is None:
        return job.first(now)
    latest = job.latest_due(now, moment_or_none(row.started_at))
    return latest if row.next_run_at > to_microseconds(latest) else None


def _look(row: Row[Any], now: datetime) -> Look:
    requested = row.requested_at is not None
    due_at = now if requested else to_moment(row.next_run_at)
    return Look(
        row.name,
        row.run_no,
        min(due_at, to_moment(row.next_run_at)) - now,
        held_for=(to_moment(row.lease_until) - now) if is_held(row, now) else timedelta(0),
        paused=bool(row.paused) and not requested,
        prompt=requested or row.outcome == "interrupted",
    )


def _names_of(jobs: Iterable[Registration]) -> str:
    return _json({"name": job.name} for job in jobs)


def _runs(runs: Iterable[Claimed | Finish]) -> str:
    return _json({"name": run.name, "run_no": run.run_no} for run in runs)


def _json(rows: Iterable[dict[str, object]]) -> str:
    return json.dumps(list(rows))
