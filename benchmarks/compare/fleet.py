"""Starts a peer as three uvicorn processes on one file, and does things to them."""

import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.compare.peers import Installed, Peer
from benchmarks.compare.records import Event
from tools.records import SIGNALS, Follower, Recorder

PROCESSES = 3

POLL_SECONDS = 0.002

# After so long something is stuck.
SECONDS_MAX = 60.0

# As the first process of a container, which a SIGTERM that it does not handle does not end. uvicorn
# raises the signal once more when it has shut down, and elsewhere that is the end of all threads.
AS_IN_A_CONTAINER = ["sh", "-c", "trap '' TERM && exec \"$@\"", "sh"]

# What `docker stop` gives a container.
DOCKER_SECONDS = 10.0


class Stuck(Exception):
    """What was waited for has not come."""


class Fleet:
    """The processes of one peer. However its `with` block ends, all end with it."""

    def __init__(self, peer: Peer, installed: Installed, folder: Path, job: str) -> None:
        """Make the file, and start nothing yet."""
        self.folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.events: list[Event] = []
        self._app = f"benchmarks.compare.apps.{peer.app}:service"
        self._python = installed.python
        self._environment = {**installed.environment(folder), "COMPARE_JOB": job}
        self.record = Recorder[Event](folder / "records.jsonl")
        self._follower = Follower(folder / "records.jsonl", Event)
        with closing(sqlite3.connect(folder / "app.db")) as database, database:
            database.execute("CREATE TABLE effect (id INTEGER PRIMARY KEY, pid INTEGER)")

    def __enter__(self) -> "Fleet":
        """Hold it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.look()

    def start(self) -> None:
        """Start the processes: one, which makes the tables, and when it is up the others."""
        self._start(1)
        self._start(PROCESSES - 1)

    def phase(self, name: str) -> None:
        """Record that it begins."""
        self.record(Event("phase", name=name))

    def look(self) -> None:
        """Read what is new, and record who has ended."""
        for pid in [pid for pid, process in self.processes.items() if process.poll() is not None]:
            del self.processes[pid]
            self.record(Event("exit", pid))
        self.events += self._follower.new()

    def watch(self, seconds: float) -> None:
        """Let so much time pass."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, POLL_SECONDS))

    def next_start(self) -> Event:
        """Wait until a body starts."""
        self.look()
        return self._start_after(len(self.events))

    def first_start(self) -> Event:
        """Return the first body that has started in this phase; wait if none has."""
        self.look()
        return self._start_after(max(n for n, it in enumerate(self.events) if it.what == "phase"))

    def idle(self) -> int:
        """Return a process that runs no body; wait if each does."""

        def found() -> list[int]:
            ended = {event.name for event in self.events if event.what in ("end", "cut")}
            starts = [event for event in self.events if event.what == "start"]
            busy = {event.pid for event in starts if event.name not in ended}
            return [pid for pid in self.processes if pid not in busy]

        self.wait("one is idle", lambda: bool(found()))
        return found()[0]

    def send(self, what: str, pid: int) -> None:
        """Send a signal, and record it: a stop just before, all else just after."""
        if what == "stop":
            self.record(Event(what, pid))
        self.processes[pid].send_signal(SIGNALS[what])
        if what != "stop":
            self.record(Event(what, pid))

    def terminate(self, *pids: int, patience: float = DOCKER_SECONDS) -> None:
        """Let them end. Who has not after so long is killed."""
        for pid in pids:
            self.send("terminate", pid)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(pid in self.processes for pid in pids):
            self.watch(POLL_SECONDS)
        for pid in [pid for pid in pids if pid in self.processes]:
            self.send("kill", pid)
        self.wait("they have ended", lambda: not any(pid in self.processes for pid in pids))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until it is so. Raises Stuck if it does not come to that."""
        deadline = time.monotonic() + SECONDS_MAX
        self.look()
        while not condition():
            if time.monotonic() > deadline:
                raise Stuck(f"not in {SECONDS_MAX:g} s: {what}; see {self.folder}")
            time.sleep(POLL_SECONDS)
            self.look()

    def _start_after(self, seen: int) -> Event:
        def found() -> list[Event]:
            return [event for event in self.events[seen:] if event.what == "start"]

        self.wait("a body starts", lambda: bool(found()))
        return found()[0]

    def _start(self, count: int) -> None:
        uvicorn = [str(self._python), "-m", "uvicorn", self._app, "--factory", "--port", "0"]
        started = set()
        with (self.folder / "service.log").open("ab") as log:
            for _ in range(count):
                process = subprocess.Popen(
                    [*AS_IN_A_CONTAINER, *uvicorn],
                    cwd=self.folder,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )
                self.processes[process.pid] = process
                started.add(process.pid)
        self.wait(
            "they are up", lambda: started <= {it.pid for it in self.events if it.what == "up"}
        )
