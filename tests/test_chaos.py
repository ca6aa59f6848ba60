"""The service as real processes on one file: `make chaos` in short, and two ends in mid-run."""

import json
import os
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

import tools.chaos.__main__ as command
from tools.chaos import harness
from tools.chaos.harness import LEASE_SECONDS, SCENARIOS, Fleet, Scenario, anybody
from tools.chaos.oracle import JOBS, LOOK_SECONDS, SLACK_SECONDS, Job, judge
from tools.chaos.records import Event, Evidence, pid_of
from tools.chaos.report import report

SECONDS = 10

# Two uvicorn workers, and another process.
GROUPS = (2, 1)

LONG = Job("long", interval=2, jitter=0.3)

WAIT_SECONDS_MAX = 30

# What is drawn is the same each time; when it happens never is.
SEED = 1


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_due_time_is_run_once_and_in_time(scenario: Scenario, tmp_path: Path) -> None:
    """Whatever is done to the processes. The machine may be busy with other tests."""
    evidence = scenario.run(tmp_path, GROUPS, SECONDS, Random(SEED))
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


# The harness


def test_a_process_that_ends_while_it_is_stopped_is_not_kept_as_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number can come to mean another process, to which nothing was done."""
    monkeypatch.setattr(harness, "STOPPED_SECONDS", 0.1)
    with Fleet(tmp_path, "rare_service", (1,), restarts=False) as fleet:
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
    with Fleet(tmp_path, "service", ()) as fleet:
        monkeypatch.setattr(harness, "START_SECONDS_MAX", 0.2)
        with pytest.raises(subprocess.TimeoutExpired):
            fleet.python("-c", "import time; time.sleep(3)")


class Recorded:
    """A fleet of six without processes, which remembers to whom something is done."""

    def __init__(self, *_: object, **__: object) -> None:
        """Begin with nothing done."""
        self.chosen: list[int] = []

    def __enter__(self) -> "Recorded":
        """Start nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """End nothing."""

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

    def evidence(self, since: float, until: float) -> Evidence:
        """Tell whom it was done to."""
        return Evidence([Event("kill", pid) for pid in self.chosen], [], [], since, until)


def test_the_seed_decides_to_whom_something_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same one the same processes, another one others."""
    monkeypatch.setattr(harness, "Fleet", Recorded)
    monkeypatch.setattr(harness, "EVERY_SECONDS", 0)
    scenario = Scenario("kill", "kill", aims=(anybody,))

    def chosen(seed: int) -> list[int]:
        evidence = scenario.run(tmp_path, (6,), 0.5, Random(seed))
        return [event.pid for event in evidence.events][:8]

    assert len(chosen(1)) == 8
    assert chosen(1) == chosen(1) != chosen(2)


# The command


@pytest.mark.parametrize(
    ("arguments", "seconds", "scenarios"),
    [
        ([], 120, []),
        (["20"], 20, []),
        (["20", "stop", "kill"], 20, ["stop", "kill"]),
        (["20", "stop", "--seed", "7"], 20, ["stop"]),
    ],
)
def test_the_command_takes_seconds_scenarios_and_a_seed(
    arguments: list[str], seconds: float, scenarios: list[str]
) -> None:
    """Each may be left out; a seed is drawn then."""
    given = command.read_arguments(arguments)
    assert (given.seconds, given.scenarios) == (seconds, scenarios)
    assert given.seed == 7 if "--seed" in arguments else 0 <= given.seed <= command.SEED_MAX


def test_a_scenario_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Or nothing would run, and nothing fail."""
    with pytest.raises(SystemExit):
        command.read_arguments(["20", "stpo"])
    assert "['stpo'] is none of ['quiet', 'kill', 'stop', 'terminate']" in capsys.readouterr().err


def test_the_seed_is_printed_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In front of each scenario's table, so that what has failed can be tried again."""
    drawn = []

    class Drawn(Scenario):
        def run(
            self, folder: Path, groups: Sequence[int], seconds: float, random: Random
        ) -> Evidence:
            drawn.append((folder.parent, groups, seconds, random.random()))
            return Evidence([], [], [], since=0, until=seconds)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command, "SCENARIOS", (Drawn("stop", "stop"),))
    command.main(20, ["stop"], seed=7)
    assert "== stop: 20 s, 6 processes, seed 7\n" in capsys.readouterr().out
    assert drawn == [(tmp_path, command.GROUPS, 20, Random(7).random())]
