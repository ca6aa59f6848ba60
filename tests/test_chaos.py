"""The service as real processes on one file: `make chaos` in short, and two ends in mid-run."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tools.chaos.harness import LEASE_SECONDS, SCENARIOS, Fleet, Scenario
from tools.chaos.oracle import JOBS, LOOK_SECONDS, SLACK_SECONDS, Job, judge
from tools.chaos.records import Event, pid_of
from tools.chaos.report import report

SECONDS = 10

# Two uvicorn workers, and another process.
GROUPS = (2, 1)

LONG = Job("long", interval=2, jitter=0.3)

WAIT_SECONDS_MAX = 30


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_due_time_is_run_once_and_in_time(scenario: Scenario, tmp_path: Path) -> None:
    """Whatever is done to the processes. The machine may be busy with other tests."""
    evidence = scenario.run(tmp_path, GROUPS, SECONDS)
    quiet, processes = not scenario.signal, sum(GROUPS)
    verdict = judge(
        evidence, JOBS, processes=processes, lease=LEASE_SECONDS, quiet=quiet, busy=True
    )
    print(report(scenario.name, verdict, load=os.getloadavg()[0], quiet=quiet))
    assert verdict.violations == []


def wait_for(fleet: Fleet, what: str, after: float = 0) -> Event:
    """Wait until this happens after that moment of the monotonic clock."""

    def found() -> Event | None:
        events = (it for it in fleet.events if it.what == what and it.monotonic > after)
        return next(events, None)

    return fleet.wait_for(what, found, WAIT_SECONDS_MAX)


def due_and_lease_end(fleet: Fleet, job: str) -> tuple[float, float]:
    """Read when the job is due next, and when its lease ends, in seconds of the wall clock."""
    with closing(sqlite3.connect(fleet.database)) as database:
        [(due, lease_end)] = database.execute(
            "SELECT next_run_at / 1e6, lease_until / 1e6 FROM cron_job WHERE name = ?", [job]
        )
    return due, lease_end


def history(fleet: Fleet, job: str) -> list[tuple[int, str | None]]:
    """Ask the shell: whose process ran the job, and how each run ended."""
    runs = json.loads(fleet.python("-m", "app.cron", "history", job, "--json"))
    return [(pid_of(run["owner"]), run["outcome"]) for run in runs]


def test_after_kill_9_in_mid_run_the_job_runs_again_when_its_lease_ends(tmp_path: Path) -> None:
    """Not before; and a catch-up delay and two seconds later at most. The history tells of it."""
    with Fleet(tmp_path, "long_service", (1, 1)) as fleet:
        killed = wait_for(fleet, "start")
        _, first = due_and_lease_end(fleet, "long")
        fleet.wait_for(
            "the lease is renewed",
            lambda: due_and_lease_end(fleet, "long")[1] > first,
            WAIT_SECONDS_MAX,
        )
        fleet.send("kill", killed.pid)
        due, lease_end = due_and_lease_end(fleet, "long")
        again = wait_for(fleet, "start", killed.monotonic)
        assert lease_end <= again.wall <= max(due, lease_end) + LONG.catch_up + SLACK_SECONDS
        assert history(fleet, "long") == [(killed.pid, "abandoned"), (again.pid, None)]


def test_after_sigterm_in_mid_run_another_process_runs_the_job_again(tmp_path: Path) -> None:
    """Within 17 s of the process's exit, though the job is due next in a minute."""
    with Fleet(tmp_path, "rare_service", (1, 1), grace=1, restarts=False) as fleet:
        cut_short = wait_for(fleet, "start")
        fleet.send("terminate", cut_short.pid)
        exit_ = wait_for(fleet, "exit")
        again = wait_for(fleet, "start", cut_short.monotonic)
        assert exit_.pid == cut_short.pid != again.pid
        assert again.monotonic <= exit_.monotonic + LOOK_SECONDS + SLACK_SECONDS
        assert history(fleet, "rare") == [(cut_short.pid, "interrupted"), (again.pid, None)]
