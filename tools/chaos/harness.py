"""Starts the service as several processes on one file, and does things to them."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TypeVar

from tools.chaos.records import (
    Event,
    Evidence,
    Follower,
    Recorder,
    pid_of,
    read_complaints,
    read_database,
)

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]

# A changed copy of the service can be put to the proof as well.
SERVICE = Path(os.environ.get("CHAOS_SERVICE", ROOT / "{{cookiecutter.project_slug}}"))

# The shortest that the service allows: what a lost process holds up is over soon.
LEASE_SECONDS = 3

# Each so often something is done to a process.
EVERY_SECONDS = 2.0

# A process is stopped for longer than its lease.
STOPPED_SECONDS = 1.5 * LEASE_SECONDS

# Nothing is done to the last process that is up, or nobody would be there to run what is due.
LEFT_ALONE = 1

# The jobs whose bodies take a while.
WORK = ("quick", "thread")

# From a claim to its body it is a few milliseconds.
POLL_SECONDS = 0.002

# After so long something is stuck.
START_SECONDS_MAX, END_SECONDS_MAX = 60.0, 20.0

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "continue": signal.SIGCONT,
    "terminate": signal.SIGTERM,
}


NEW_CLAIMS = "SELECT id, owner FROM chaos_effect WHERE what = 'claim' AND id > ? ORDER BY id"


class Group:
    """A uvicorn, alone or with workers, in a process group of its own."""

    def __init__(self, fleet: "Fleet", workers: int) -> None:
        """Start it."""
        self.workers = workers
        uvicorn = [sys.executable, "-u", "-m", "uvicorn", fleet.app, "--factory", "--port", "0"]
        # Its health check would kill a worker that is stopped.
        options = ["--workers", str(workers), "--timeout-worker-healthcheck", "60"]
        with fleet.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*uvicorn, *(options if workers > 1 else [])],
                cwd=fleet.folder,
                env=fleet.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def owns(self, pid: int) -> bool:
        """Whether the process is this one's: a number can come to mean another process."""
        with suppress(ProcessLookupError):
            return os.getpgid(pid) == self.process.pid
        return False

    def end(self) -> None:
        """Kill what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Fleet:
    """The processes of one run, and the file in which they and we record what happens.

    `groups` says how many workers each uvicorn has. With `restarts`, one that ends is started anew.
    However its `with` block ends, all end with it.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        groups: Sequence[int],
        *,
        grace: float = 5,
        restarts: bool = True,
    ) -> None:
        """Make the tables, and start nothing yet."""
        self.folder = folder
        self.app = f"tools.chaos.service:{app}"
        self.database = folder / "app.db"
        self.log = folder / "service.log"
        self.records = folder / "records.jsonl"
        self.record = Recorder(self.records)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CRON_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(SERVICE)]),
            "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "bytecode"),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "CHAOS_RECORDS": str(self.records),
            "CRON_LEASE_SECONDS": str(LEASE_SECONDS),
            "CRON_GRACE_SECONDS": str(grace),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "text",
        }
        self._sizes = groups
        self._restarts = restarts
        self._groups: list[Group] = []
        self._follower = Follower(self.records)
        self._up: list[int] = []
        self.events: list[Event] = []
        self.stopped: dict[int, float] = {}
        """When each process that is stopped is to be continued, on the monotonic clock."""
        self.python("-m", "tools.chaos.service")
        self._connection = sqlite3.connect(self.database)
        self._last_claim = 0

    def python(self, *arguments: str) -> str:
        """Run Python with the service's settings, and give what it prints.

        Raises subprocess.TimeoutExpired after START_SECONDS_MAX, and then it is killed.
        """
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    def __enter__(self) -> "Fleet":
        """Start all processes, and wait until they are up."""
        try:
            self._groups += [Group(self, workers) for workers in self._sizes]
            self.wait_for("all are up", lambda: len(self.up()) == self.size, START_SECONDS_MAX)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes, whatever state they are in."""
        while self._groups:
            self._groups.pop().end()
        self._connection.close()

    @property
    def size(self) -> int:
        """How many processes run jobs."""
        return sum(self._sizes)

    def up(self) -> list[int]:
        """Return the processes that run jobs and to which nothing is being done."""
        return [pid for pid in self._up if pid not in self.stopped and self._is_ours(pid)]

    def new_claims(self) -> list[int]:
        """Return who has claimed a run since this was last asked."""
        rows = self._connection.execute(NEW_CLAIMS, [self._last_claim]).fetchall()
        self._last_claim = max([self._last_claim, *(id_ for id_, _ in rows)])
        return [pid_of(owner) for _, owner in rows]

    def tend(self) -> list[Event]:
        """Continue what was stopped for long enough, start what has ended. Give what is new."""
        for pid in [pid for pid, until in self.stopped.items() if until <= time.monotonic()]:
            self.send("continue", pid)
        for group in [group for group in self._groups if group.process.poll() is not None]:
            self.record(Event("exit", group.process.pid))
            self._groups.remove(group)
            if self._restarts:
                self._groups.append(Group(self, group.workers))
        events = list(self._follower.new())
        self.events += events
        self._up += [event.pid for event in events if event.what == "up"]
        return events

    def send(self, what: str, pid: int) -> None:
        """Send a signal to one of our processes, and record it. One that is gone gets none."""
        if what == "continue":
            del self.stopped[pid]  # also of one that has ended meanwhile
        if not self._is_ours(pid):
            return
        if what == "stop":  # from just before to just after, for what it excuses
            self.record(Event(what, pid))
            self.stopped[pid] = time.monotonic() + STOPPED_SECONDS
        os.kill(pid, SIGNALS[what])
        if what != "stop":
            self.record(Event(what, pid))
        if what in ("kill", "terminate"):
            self._up.remove(pid)

    def wait_for(self, what: str, found: Callable[[], T | None], seconds: float) -> T:
        """Tend until there is something to be found, and give it."""
        deadline = time.monotonic() + seconds
        while True:
            self.tend()
            if thing := found():
                return thing
            assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}; see {self.folder}"
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """Let all processes end by themselves."""
        for pid in list(self.stopped):
            self.send("continue", pid)
        self.tend()
        for pid in self.up():
            self.record(Event("terminate", pid))
        for group in self._groups:
            group.process.terminate()
        for group in self._groups:
            with suppress(subprocess.TimeoutExpired):
                group.process.wait(END_SECONDS_MAX)

    def evidence(self, since: float, until: float) -> Evidence:
        """Read what has been recorded."""
        commits, claims = read_database(self.database)
        events = list(Follower(self.records).new())
        return Evidence(events, commits, claims, since, until, read_complaints(self.log))

    def _is_ours(self, pid: int) -> bool:
        return any(group.owns(pid) for group in self._groups)


def anybody(fleet: Fleet, _: list[Event]) -> list[int]:
    """Give all who run jobs."""
    return fleet.up()


def beginners(_: Fleet, events: list[Event]) -> list[int]:
    """Give who has just begun a run that takes a while."""
    return [event.pid for event in events if event.what == "start" and event.job in WORK]


def claimers(fleet: Fleet, _: list[Event]) -> list[int]:
    """Give who has just claimed a run, and has hardly begun it."""
    return fleet.new_claims()


Aim = Callable[[Fleet, list[Event]], list[int]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to a process each two seconds, to whom in turn. Nothing, without a signal."""

    name: str
    signal: str = ""
    aims: tuple[Aim, ...] = (anybody, beginners, claimers)
    grace: float = 5

    def run(self, folder: Path, groups: Sequence[int], seconds: float, random: Random) -> Evidence:
        """Let the service run for so long. `random` draws to whom something is done."""
        with Fleet(folder, "service", groups, grace=self.grace) as fleet:
            since = act_at = time.monotonic()
            until, aims = since + seconds, cycle(self.aims)
            aim = next(aims)
            while (now := time.monotonic()) < until:
                events = fleet.tend()
                found, up = aim(fleet, events), fleet.up()
                victims = [pid for pid in found if pid in up]
                if self.signal and victims and now >= act_at and len(up) > LEFT_ALONE:
                    fleet.send(self.signal, random.choice(victims))
                    act_at, aim = max(act_at + EVERY_SECONDS, now), next(aims)
                time.sleep(POLL_SECONDS)
            fleet.end()
        return fleet.evidence(since, until)


SCENARIOS = (
    Scenario("quiet"),
    Scenario("kill", "kill"),
    # Between the last check of a lease and the first line of a body there is a moment that nobody
    # can close, some 10 us: whoever is stopped in it begins when continued. Aimed at claimers, one
    # stop in a hundred hits it; so none is.
    Scenario("stop", "stop", aims=(anybody, beginners)),
    # Without grace, or bodies that take a fifth of a second would all end in time.
    Scenario("terminate", "terminate", grace=0),
)
