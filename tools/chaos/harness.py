"""Starts the service as several processes on one database, and does things to them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from tools.chaos.clocks import WallClock
from tools.chaos.databases import ROOT, Database
from tools.chaos.links import Link
from tools.chaos.records import (
    Event,
    Evidence,
    pid_of,
    read_claims,
    read_commits,
    read_complaints,
)
from tools.records import SIGNALS, Follower, Recorder

T = TypeVar("T")

# A changed copy of the service can be put to the proof as well.
SERVICE = Path(os.environ.get("CHAOS_SERVICE", ROOT / "{{cookiecutter.project_slug}}"))

# The shortest that the service allows: what a lost process holds up is over soon.
LEASE_SECONDS = 3

# A process is stopped, or cut off, for longer than its lease.
STOPPED_SECONDS = 1.5 * LEASE_SECONDS

# From a claim to its body it is a few milliseconds.
POLL_SECONDS = 0.002

# Who claimed longer ago has begun what it has claimed.
CLAIM_SECONDS = 0.1

# After so long something is stuck.
START_SECONDS_MAX, END_SECONDS_MAX = 60.0, 20.0


class Group:
    """A uvicorn, alone or with workers, in a process group of its own.

    It may have a wall clock that can be stepped, and a link to the database that can be cut.
    """

    def __init__(
        self,
        fleet: "Fleet",
        workers: int,
        clock: WallClock | None = None,
        link: Link | None = None,
    ) -> None:
        """Start it."""
        self.workers = workers
        self.clock = clock
        self.link = link
        uvicorn = [sys.executable, "-u", "-m", "uvicorn", fleet.app, "--factory", "--port", "0"]
        # Its health check would kill a worker that is stopped.
        options = ["--workers", str(workers), "--timeout-worker-healthcheck", "60"]
        with fleet.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(link.command if link else []), *uvicorn, *(options if workers > 1 else [])],
                cwd=fleet.folder,
                env={
                    **fleet.environment,
                    **(clock.environment if clock else {}),
                    "DATABASE_URL": fleet.database.url_for(link.host if link else None),
                },
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
    With `clocks`, wall clocks can be stepped: one that all have on SQLite, which is for one machine
    only, and one for each group on Postgres. With `links`, each group's to Postgres can be cut.
    However its `with` block ends, all end with it.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        app: str,
        groups: Sequence[int],
        *,
        grace: float = 5,
        restarts: bool = True,
        clocks: bool = False,
        links: bool = False,
    ) -> None:
        """Make the tables, and start nothing yet."""
        self.folder = folder
        self.database = database
        self.app = f"tools.chaos.service:{app}"
        self.log = folder / "service.log"
        self.records = folder / "records.jsonl"
        self.record = Recorder[Event](self.records)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CRON_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(SERVICE)]),
            "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "bytecode"),
            "DATABASE_URL": database.url_for(None),
            "CHAOS_RECORDS": str(self.records),
            "CRON_LEASE_SECONDS": str(LEASE_SECONDS),
            "CRON_GRACE_SECONDS": str(grace),
            "LOG_LEVEL": "INFO",
            "LOG_FORMAT": "text",
        }
        self._sizes = groups
        self._restarts = restarts
        self._clocks = clocks
        self._links = links
        self.groups: list[Group] = []
        self._follower = Follower(self.records, Event)
        self._up: list[int] = []
        self.events: list[Event] = []
        self.stopped: dict[int, float] = {}
        """When each process that is stopped is to be continued, on the monotonic clock."""
        self._cut_off: list[int] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.python("-m", "tools.chaos.service")
        self._last_claim, self._looked_at = 0, 0.0
        self.held_up = 0.0

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
            clock = WallClock(self.folder / "clock") if self._clocks else None
            for number, workers in enumerate(self._sizes):
                if clock and self.database.name == "postgres":
                    clock = WallClock(self.folder / f"clock-{number}")
                self.groups.append(Group(self, workers, clock, Link() if self._links else None))
            self.wait_for("all are up", lambda: len(self.up()) == self.size, START_SECONDS_MAX)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes, whatever state they are in."""
        with ExitStack() as stack:
            for group in self.groups:
                for part in (group.clock, group.link, group):  # the last one first
                    if part:
                        stack.callback(part.end)
        self.groups.clear()

    @property
    def size(self) -> int:
        """How many processes run jobs."""
        return sum(self._sizes)

    def up(self) -> list[int]:
        """Return the processes that run jobs and to which nothing is being done."""
        busy = {*self.stopped, *self._cut_off}
        return [pid for pid in self._up if pid not in busy and self.group_of(pid)]

    def group_of(self, pid: int) -> Group | None:
        """Return the group of a process, if it is one of ours."""
        return next((group for group in self.groups if group.owns(pid)), None)

    def members(self, group: Group) -> list[int]:
        """Return the processes of a group that run jobs."""
        return [pid for pid in self._up if group.owns(pid)]

    def new_claims(self) -> list[int]:
        """Return who has claimed a run since this was last asked, if that was just now."""
        looked_at, self._looked_at = self._looked_at, time.monotonic()
        try:
            rows = self.database.claims_after(self._last_claim)
        except OperationalError:
            return []
        self._last_claim = max([self._last_claim, *(id_ for id_, _ in rows)])
        if self._looked_at > looked_at + CLAIM_SECONDS:
            return []
        return [pid_of(owner) for _, owner in rows]

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do that after so long, at the latest when all ends."""
        self._later.append((time.monotonic() + seconds, action))

    def tend(self) -> list[Event]:
        """Undo what was done for long enough, start what has ended. Give what is new."""
        now = time.monotonic()
        for pid in [pid for pid, until in self.stopped.items() if until <= now]:
            self.send("continue", pid)
        self._do_what_is_due(now)
        for group in [group for group in self.groups if group.process.poll() is not None]:
            self.record(Event("exit", group.process.pid))
            self.groups.remove(group)
            if self._restarts:
                self.groups.append(Group(self, group.workers, group.clock, group.link))
            elif group.link:
                group.link.end()
        events = list(self._follower.new())
        self.events += events
        for pid in [event.pid for event in events if event.what == "up"]:
            self._up.append(pid)
            self._tell_clock(pid)
        return events

    def send(self, what: str, pid: int) -> None:
        """Send a signal to one of our processes, and record it. One that is gone gets none."""
        if what == "continue":
            del self.stopped[pid]  # also of one that has ended meanwhile
        if not self.group_of(pid):
            return
        if what == "stop":  # from just before to just after, for what it excuses
            self.record(Event(what, pid))
            self.stopped[pid] = time.monotonic() + STOPPED_SECONDS
        os.kill(pid, SIGNALS[what])
        if what != "stop":
            self.record(Event(what, pid))
        if what in ("kill", "terminate"):
            self._up.remove(pid)

    def cut_off(self, group: Group) -> None:
        """Cut the link of a group to the database, and mend it later."""
        link, pids = group.link, self.members(group)
        assert link is not None
        for pid in pids:
            self.record(Event("cut", pid))
        self._cut_off += pids
        link.cut()

        def mend() -> None:
            link.mend()
            for pid in pids:
                self.record(Event("mend", pid))
                self._cut_off.remove(pid)

        self.later(STOPPED_SECONDS, mend)

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
        self._do_what_is_due(inf)
        self.tend()
        for pid in self.up():
            self.record(Event("terminate", pid))
        for group in self.groups:
            group.process.terminate()
        ended = Event("terminate", 0)
        for group in self.groups:
            with suppress(subprocess.TimeoutExpired):
                group.process.wait(END_SECONDS_MAX)
        # Who was starting just then has come up first, and begun to run what was due.
        for event in self._follower.new():
            if event.what == "up":
                self.record(replace(ended, pid=event.pid))

    def evidence(self, since: float, until: float) -> Evidence:
        """Read what has been recorded."""
        return Evidence(
            list(Follower(self.records, Event).new()),
            read_commits(self.database.effects()),
            read_claims(self.database.history()),
            since,
            until,
            read_complaints(self.log),
            held_up=self.held_up,
            postgres=self.database.name == "postgres",
        )

    def _do_what_is_due(self, now: float) -> None:
        due = [action for at, action in self._later if at <= now]
        self._later = [item for item in self._later if item[0] > now]
        for action in due:
            action()

    def _tell_clock(self, pid: int) -> None:
        """Record that the wall clock of a new process is not that of Postgres."""
        clock = group.clock if (group := self.group_of(pid)) else None
        if self.database.name == "postgres" and clock and clock.seconds:
            self.record(Event("step", pid, amount=clock.seconds))
