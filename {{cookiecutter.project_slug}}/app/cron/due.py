"""When a job is due, as it can be told from what is kept of it, without a claim."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from random import Random

from .clock import RandomSource
from .job import Job
from .records import JobRecord


class Fixed(Random):
    """Chance that is none: every draw is the same, from 0 to 1."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


SOONEST, LATEST = Fixed(0), Fixed(1)


@dataclass(frozen=True, slots=True)
class DueTime:
    """When a coming run is due. Both are the same where chance is known."""

    run_no: int
    earliest: datetime
    latest: datetime


def due_times(
    job: Job, record: JobRecord | None, now: datetime, random: RandomSource | None, count: int
) -> list[DueTime]:
    """When the next `count` runs are due, if each begins when it is due, or now if it is overdue.

    `random` is the chance that all processes share, None where each has its own. Of a job without a
    record, the first process to start will make one. The list ends where the calendar does.
    """
    sources = (random, random) if random else ((lambda _: SOONEST), (lambda _: LATEST))
    earliest, latest = (_due_times(job, record, now, source) for source in sources)
    both = zip(earliest, latest, strict=False)
    return [DueTime(run_no, soonest, last) for (run_no, soonest), (_, last) in islice(both, count)]


def _due_times(
    job: Job, record: JobRecord | None, now: datetime, random: RandomSource
) -> Iterator[tuple[int, datetime]]:
    run_no = record.run_no if record else 0
    if record:
        due = min(record.next_run_at, record.requested_at or record.next_run_at)
    else:
        due = job.schedule.first(now, random(f"{job.name}:{run_no}:gap"))
    while True:
        run_no += 1
        yield run_no, due
        try:
            due = job.schedule.next(max(now, due), random(f"{job.name}:{run_no}:gap"))
        except OverflowError:
            return


def is_due(record: JobRecord, now: datetime) -> bool:
    """Whether the job may be claimed now, as processes that wait for its due time claim it."""
    if record.requested_at is not None:
        return True
    return not record.paused and record.next_run_at <= now


def has_waited(job: Job, record: JobRecord, now: datetime) -> bool:
    """Whether the shortest gap that chance allows has passed since the job last started.

    A timer outside comes at its own times: were it to wait for the due time, it would come late,
    every time, by up to its own interval.
    """
    if record.paused or record.last_run is None:
        return False
    return job.schedule.next(record.last_run.started_at, SOONEST) <= now
