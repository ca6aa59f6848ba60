"""The service as real processes on one database: `make chaos` in short, and ends in mid-run."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from sqlalchemy import create_engine, text

import tools.chaos.__main__ as command
from tests.machine import lacking
from tools.chaos import harness, scenarios
from tools.chaos.databases import Postgres, Sqlite
from tools.chaos.faults import FAULTS, Fault, Signal, anybody
from tools.chaos.harness import LEASE_SECONDS, Fleet
from tools.chaos.oracle import JOBS, LOOK_SECONDS, SLACK_SECONDS, Job, judge
from tools.chaos.records import FAULTS as DONE
from tools.chaos.records import Event, Evidence, pid_of, read_commits
from tools.chaos.report import report
from tools.chaos.scenarios import DATABASES, SCENARIOS, Scenario

# Of all that is done in turn, each comes once.
SECONDS = {"quiet": 5, "all": 22}

# Two uvicorn workers, and another process.
GROUPS = (2, 1)

LONG = Job("long", interval=2, jitter=0.3)

WAIT_SECONDS_MAX = 30

# What is drawn is the same each time; when it happens never is.
SEED = 1


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.name in SECONDS],
    ids=lambda scenario: scenario.name,
)
def test_each_due_time_is_run_once_and_in_time(
    scenario: Scenario, database: str, tmp_path: Path
) -> None:
    """Whatever is done, and each thing is. The machine may be busy with other tests."""
    seconds, quiet, processes = SECONDS[scenario.name], not scenario.faults, sum(GROUPS)
    evidence = scenario.run(database, tmp_path, GROUPS, seconds, Random(SEED))
    verdict = judge(
        evidence, JOBS, processes=processes, lease=LEASE_SECONDS, quiet=quiet, busy=True
    )
    print(report(scenario.name, verdict, load=os.getloadavg()[0], quiet=quiet))
    assert verdict.violations == []
    assert (
        {fault.recorded_as for fault in scenario.on(database)} <= set(verdict.faults) <= set(DONE)
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lacking_here_for_what_is_done(fault: Fault) -> None:
    """Or it is left out, and that is said."""
    if what := fault.lacks():
        lacking(f"{what}: what comes of it ({fault.name}) is untested")


def test_commits_are_read_in_their_order(tmp_path: Path) -> None:
    """On Postgres a row has its number before another one, and is committed after it."""
    insert = "INSERT INTO chaos_effect (what, job, run_no, pid) VALUES ('write', 'x', 1, :pid)"
    with Postgres(tmp_path) as database, Fleet(tmp_path, database, "service", ()):
        engine = create_engine(database.url)
        with engine.connect() as first, engine.connect() as second:
            first.execute(text(insert), {"pid": 1})
            second.execute(text(insert), {"pid": 2})
            second.commit()
            first.commit()
        engine.dispose()
        assert [commit.pid for commit in read_commits(database.effects())] == [2, 1]


def wait_for(fleet: Fleet, what: str, after: float = 0) -> Event:
    """Wait until this happens after that moment of the monotonic clock."""

    def found() -> Event | None:
        events = (it for it in fleet.events if it.what == what and it.monotonic > after)
        return next(events, None)

    return fleet.wait_for(what, found, WAIT_SECONDS_MAX)


def due_and_lease_end(fleet: Fleet, job: str) -> tuple[float, float]:
    """Read when the job is due next, and when its lease ends, in seconds of the wall clock."""
    [(due, lease_end)] = fleet.database.ask(
        "SELECT next_run_at / 1e6, lease_until / 1e6 FROM cron_job WHERE name = :name", name=job
    )
    return due, lease_end


def history(fleet: Fleet, job: str) -> list[tuple[int, str | None]]:
    """Ask the shell: whose process ran the job, and how each run ended."""
    runs = json.loads(fleet.python("-m", "app.cron", "history", job, "--json"))
    return [(pid_of(run["owner"]), run["outcome"]) for run in runs]


def test_after_kill_9_in_mid_run_the_job_runs_again_when_its_lease_ends(tmp_path: Path) -> None:
    """Not before; and a catch-up delay and two seconds later at most. The history tells of it."""
    with Fleet(tmp_path, Sqlite(tmp_path), "long_service", (1, 1)) as fleet:
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
    with Fleet(
        tmp_path, Sqlite(tmp_path), "rare_service", (1, 1), grace=1, restarts=False
    ) as fleet:
        cut_short = wait_for(fleet, "start")
        fleet.send("terminate", cut_short.pid)
        exit_ = wait_for(fleet, "exit")
        again = wait_for(fleet, "start", cut_short.monotonic)
        assert exit_.pid == cut_short.pid != again.pid
        assert again.monotonic <= exit_.monotonic + LOOK_SECONDS + SLACK_SECONDS
        assert history(fleet, "rare") == [(cut_short.pid, "interrupted"), (again.pid, None)]


# The harness


def test_a_process_that_ends_while_it_is_stopped_is_not_kept_as_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number can come to mean another process, to which nothing was done."""
    monkeypatch.setattr(harness, "STOPPED_SECONDS", 0.1)
    with Fleet(tmp_path, Sqlite(tmp_path), "rare_service", (1,), restarts=False) as fleet:
        [pid] = fleet.up()
        fleet.send("stop", pid)
        assert list(fleet.stopped) == [pid]
        os.kill(pid, signal.SIGKILL)
        wait_for(fleet, "exit")
        fleet.wait_for("it is forgotten", lambda: not fleet.stopped, seconds=2)


def test_python_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for what is stuck."""
    with Fleet(tmp_path, Sqlite(tmp_path), "service", ()) as fleet:
        monkeypatch.setattr(harness, "START_SECONDS_MAX", 0.2)
        with pytest.raises(subprocess.TimeoutExpired):
            fleet.python("-c", "import time; time.sleep(3)")


class Recorded:
    """A fleet of six without processes, which remembers to whom something is done."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self.chosen: list[int] = []
        self.held_up = 0.0

    def up(self) -> list[int]:
        """All six are, whatever is done to them."""
        return [1, 2, 3, 4, 5, 6]

    def tend(self) -> list[Event]:
        """Nothing happens."""
        return []

    def send(self, _: str, pid: int) -> None:
        """Remember the process."""
        self.chosen.append(pid)

    def end(self) -> None:
        """Nothing is left to end."""


def test_the_seed_decides_to_whom_something_is_done() -> None:
    """The same one the same processes, another one others."""
    kill = Signal("kill", anybody)
    kill.every_seconds = 0

    def chosen(seed: int) -> list[int]:
        fleet = Recorded()
        scenarios.run(cast(Fleet, fleet), [kill], 0.5, Random(seed))
        return fleet.chosen[:8]

    assert len(chosen(1)) == 8
    assert chosen(1) == chosen(1) != chosen(2)


# The command


@pytest.mark.parametrize(
    ("arguments", "minutes", "scenarios", "on"),
    [
        ([], 10, [], None),
        (["20"], 20, [], None),
        (["0.5", "stop", "kill"], 0.5, ["stop", "kill"], None),
        (["20", "stop", "--seed", "7", "--on", "postgres"], 20, ["stop"], ["postgres"]),
    ],
)
def test_the_command_takes_minutes_scenarios_a_database_and_a_seed(
    arguments: list[str], minutes: float, scenarios: list[str], on: list[str] | None
) -> None:
    """Each may be left out; a seed is drawn then."""
    given = command.read_arguments(arguments)
    assert (given.minutes, given.scenarios, given.on) == (minutes, scenarios, on)
    assert given.seed == 7 if "--seed" in arguments else 0 <= given.seed <= command.SEED_MAX


def test_a_scenario_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Or nothing would run, and nothing fail."""
    with pytest.raises(SystemExit):
        command.read_arguments(["20", "stpo"])
    assert "['stpo'] is none of ['quiet', 'kill', 'stop'," in capsys.readouterr().err


def drawn_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *faults: Fault
) -> list[tuple[Any, ...]]:
    """Let the command have one scenario, which remembers what it is given, and does nothing."""
    drawn = []

    class Drawn(Scenario):
        def run(
            self, database: str, folder: Path, groups: Sequence[int], seconds: float, random: Random
        ) -> Evidence:
            drawn.append((database, folder.parent, groups, seconds, random.random()))
            return Evidence([], [], [], since=0, until=seconds)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command, "SCENARIOS", (Drawn("one", faults), Drawn("two", faults)))
    return drawn


def test_the_seed_is_printed_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In front of each scenario's table, so that what has failed can be tried again."""
    drawn = drawn_by(monkeypatch, tmp_path)
    command.main(2, ["two"], ["postgres"], seed=7)
    assert "== two on postgres: 120 s, 6 processes, seed 7\n" in capsys.readouterr().out
    assert drawn == [("postgres", tmp_path, command.GROUPS, 120, Random(7).random())]


def test_the_time_is_shared_by_the_databases_and_their_scenarios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has the same part; what was found wrong in one ends the command with code 1."""
    drawn = drawn_by(monkeypatch, tmp_path)
    assert command.main(2, [], DATABASES, seed=7) == 1  # nobody came up
    assert [(each[0], each[3]) for each in drawn] == [
        ("sqlite", 30),
        ("sqlite", 30),
        ("postgres", 30),
        ("postgres", 30),
    ]
    assert "WRONG: 0 processes came up, not 6" in capsys.readouterr().out


def test_what_is_lacking_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scenario of nothing else is not run at all."""

    class Impossible(Signal):
        def lacks(self) -> str:
            return "there is none"

    impossible = Impossible("impossible")
    drawn = drawn_by(monkeypatch, tmp_path, impossible)
    monkeypatch.setattr(command, "FAULTS", (impossible,))
    command.main(2, [], ["sqlite"], seed=7)
    assert drawn == []
    assert "NOT RUN: impossible on sqlite: there is none" in capsys.readouterr().out.splitlines()
