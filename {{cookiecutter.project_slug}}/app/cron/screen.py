"""What the shell shows, to people and to programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from .due import DueTime
from .job import Job
from .records import JobRecord, ProcessRecord
from .schedule import in_words
from .store import Finish, Run
from .terminal import Row, coloured, show_table

# A process says every minute that it is alive: it may have been late twice.
ALIVE = timedelta(minutes=3)

# For how long it is worth telling that a process did not run.
ABSENCE_AGE = timedelta(days=1)


def show_list(
    jobs: Mapping[str, Job],
    records: Mapping[str, JobRecord],
    processes: Sequence[ProcessRecord],
    database: str,
    now: datetime,
) -> None:
    """A row for each job of this code or of the database. Below, who runs them, and where."""
    names = sorted({*jobs, *records})
    show_table([_job_row(name, jobs.get(name), records.get(name), now) for name in names])
    alive = [each for each in processes if each.stopped_at is None and now - each.seen_at <= ALIVE]
    print()
    show_table(
        [
            {
                "ALIVE": process.owner,
                "STARTED (UTC)": date_and_time(process.started_at),
                "SEEN": ago(process.seen_at, now),
            }
            for process in alive
        ]
    )
    if not alive:
        print("no process is alive: no job starts by itself")
    for process in processes:
        since, until = process.absent_from, process.absent_until
        if since and until and now - until <= ABSENCE_AGE:
            between = f"from {date_and_time(since)} to {date_and_time(until)} UTC"
            print(f"{process.owner} did not run {between}")
    print(f"database: {database}")


def show_list_as_json(
    jobs: Mapping[str, Job],
    records: Mapping[str, JobRecord],
    processes: Sequence[ProcessRecord],
    database: str,
) -> None:
    """What is known of the jobs, null where nothing, and of the processes of seven days."""
    nothing = {field.name: None for field in fields(JobRecord) if field.name != "name"}
    shown = []
    for name in sorted({*jobs, *records}):
        job, record = jobs.get(name), records.get(name)
        in_code = {
            "name": name,
            "in_code": job is not None,
            "schedule": str(job.schedule) if job else None,
            "each_process": job.each_process if job else None,
        }
        shown.append(in_code | (asdict(record) if record else nothing))
    show_as_json({"jobs": shown, "processes": processes, "database": database})


def show_due_times(times: Sequence[DueTime], record: JobRecord | None, now: datetime) -> None:
    """When the coming runs are due, at the earliest and at the latest."""
    show_table(
        [
            {
                "RUN": due.run_no,
                "EARLIEST (UTC)": date_and_time(due.earliest),
                "LATEST (UTC)": date_and_time(due.latest),
                "FROM NOW": hence(due.earliest, now),
            }
            for due in times
        ]
    )
    if record is not None and record.paused:
        print(paused(record.name))


def show_history(name: str, runs: Sequence[Run], now: datetime) -> None:
    """A row for each run of the job. For one under way, how long it has taken so far."""
    if not runs:
        print(f"{name} has not run yet")
    rows: list[Row] = []
    for run in runs:
        end = now if run.outcome is None else run.finished_at
        rows.append(
            {
                "RUN": run.run_no,
                "STARTED (UTC)": date_and_time(run.started_at),
                "LATE": in_words(run.started_at - run.due_at),
                "TOOK": in_words(end - run.started_at) if end else "",
                "OUTCOME": run.outcome or "running",
                "PROCESS": run.owner,
                "NOTE": run.note or run.error,
            }
        )
    show_table(rows)


def show_end(finish: Finish, took: timedelta) -> None:
    """How a run has ended, in a line."""
    remark = finish.note or finish.error
    words = [coloured(finish.outcome), *([remark] if remark else []), f"after {in_words(took)}"]
    print(f"{finish.name} run {finish.run_no}: {', '.join(words)}")


def show_as_json(value: object) -> None:
    """For programs. Times are ISO 8601, in UTC."""

    def plain(value: Any) -> object:
        return value.isoformat() if isinstance(value, datetime) else asdict(value)

    print(json.dumps(value, indent=2, default=plain))


def paused(name: str) -> str:
    """What it means that a job is paused."""
    return f"{name} is paused: until `resume` it runs only when it is asked to"


def not_due(record: JobRecord, now: datetime) -> str:
    """When the job will be."""
    when = "it is paused" if record.paused else f"next run {next_run(record, now)}"
    return f"{record.name} is not due: {when}"


def elsewhere(name: str, record: JobRecord | None, now: datetime, seen: Run | None = None) -> str:
    """That another process runs the job, or what it has done since the last run `seen`."""
    if record is not None and record.held_by:
        return f"{name} is running elsewhere, in {record.held_by}"
    run = record.last_run if record else None
    if run is None or run == seen:  # paused, perhaps, or forgotten
        return f"{name} has just been changed elsewhere"
    when = ago(run.finished_at or run.started_at, now)
    return f"{name} has just run elsewhere, in {run.owner}: {run.outcome}, {when}"


def next_run(record: JobRecord, now: datetime) -> str:
    """In how long the job is due."""
    if record.requested_at is not None:
        return "now"
    if record.paused:
        return "paused"
    return hence(record.next_run_at, now)


def hence(moment: datetime, now: datetime) -> str:
    """In how long that is."""
    return "now" if moment <= now else f"in {in_words(moment - now)}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago that was."""
    return f"{in_words(now - moment)} ago"


def date_and_time(moment: datetime) -> str:
    """To the second, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _job_row(name: str, job: Job | None, record: JobRecord | None, now: datetime) -> Row:
    row: dict[str, str | int] = dict.fromkeys(
        ("JOB", "SCHEDULE", "NEXT RUN", "UTC", "LAST RUN", "OUTCOME", "RUNS", "FAILED", "NOTE"), ""
    )
    row |= {"JOB": name, "SCHEDULE": str(job.schedule) if job else "not in this code"}
    if job is not None and job.each_process:
        return row | {"NEXT RUN": "in each process"}
    if record is None:
        return row | {"NEXT RUN": "not yet known", "LAST RUN": "never"}
    row |= {"NEXT RUN": next_run(record, now), "LAST RUN": "never", "RUNS": record.run_no}
    if not record.paused or record.requested_at is not None:
        row["UTC"] = _time(min(record.next_run_at, record.requested_at or record.next_run_at), now)
    if job is None and row["NEXT RUN"] == "now":
        row["NEXT RUN"] = "overdue"  # "now" would promise that something runs it
    if (run := record.last_run) is not None:
        row["LAST RUN"] = ago(run.started_at, now)
        row["OUTCOME"] = run.outcome or "running"
        row["NOTE"] = run.note or run.error or record.held_by or ""
    if record.failures:
        row["FAILED"] = f"last {record.failures}"
    return row


def _time(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%b %d %H:%M}"
