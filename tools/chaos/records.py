"""What is recorded of a run of the service, and how it is read. Nothing of the engine is in here.

There are two sources. One is a file to which bodies, processes and the harness append lines. It is
what a verdict rests on. The other is the database, read for what only it can tell: what was written
there in which order, and when a run was due.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# How a body can end. Without such a line its process was killed.
ENDS = ("end", "error", "cancelled", "refused")

# What the service says of itself.
OF_SERVICE = ("start", *ENDS, "up", "down")

# What the harness does to a process: signals, and the link to the database.
TO_PROCESSES = ("kill", "stop", "continue", "terminate", "cut", "mend")

# What it does to all of them at once, then without a process.
TO_ALL = ("away", "back", "disconnect")

# And to the wall clock of all, or on Postgres of one process.
FAULTS = (*TO_PROCESSES, *TO_ALL, "step")


# How an entry of the log begins: the service's, uvicorn's, and what asyncio and Python write by
# themselves. All else goes on with the one before, as a traceback does.
ENTRY = re.compile(
    r"^(?=\d{4}-\S+ \S+ [A-Z]+ |INFO:     |WARNING:  |ERROR:    |CRITICAL: "
    r"|Task |Future |Exception in |Exception ignored |Unhandled |Fatal |\S+:\d+: \w*Warning: )",
    re.M,
)

NEWS = re.compile(r"$|INFO: |\S+ \S+ INFO ")

# The one error that is meant, with its traceback.
MADE_TO_FAIL = re.compile(r"\S+ \S+ ERROR fails run \d+: error: every other time$")


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the file.

    Of a body, `what` is "start" or one of ENDS; of a process "up", "down" or "exit"; or it is one
    of FAULTS. All processes of a machine share its monotonic clock, so its seconds can be compared.
    """

    what: str
    pid: int
    job: str = ""
    body: str = ""
    """Made up by the body that starts, so no number of the engine's need be believed."""
    amount: float = 0
    """Of a body's end, how many of its writes were confirmed; of a "step", by how many seconds; of
    a "disconnect", how many connections."""
    monotonic: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Commit:
    """A row of `chaos_effect`, in which the database itself notes what was committed.

    They are in the order of the commits.

    A "write" is a body's, through `ctx.write`; a "claim" is noted by a trigger on the jobs' table.
    """

    what: str
    job: str
    pid: int
    run_no: int
    at: float
    """Seconds of the wall clock, as the database has it."""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of the engine's own history, in seconds of the wall clock."""

    job: str
    pid: int
    due: float
    at: float
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run. Between `since` and `until`, monotonic, all should have run."""

    events: list[Event]
    commits: list[Commit]
    claims: list[Claim]
    since: float
    until: float
    complaints: list[str] = field(default_factory=list)
    """Warnings, errors and tracebacks in the service's log, but for what is made to fail."""
    held_up: float = 0
    """For how many seconds the harness, which only looks and sleeps, was held up at most: so the
    machine can have stood still for everybody."""
    postgres: bool = False
    """Else the database is SQLite."""


def read_complaints(log: Path) -> list[str]:
    """Read the complaints in a log: the first line of each or, of a bare traceback, the last."""
    found = list[str]()
    for entry in ENTRY.split(log.read_text()):
        first, *rest = entry.strip().splitlines() or [""]
        if NEWS.match(first):
            found += rest[-1:]  # news is one line: somebody else has written the rest
        elif not MADE_TO_FAIL.match(first):
            found.append(first)
    return found


def pid_of(owner: str) -> int:
    """Return the process in the name of an owner, which is host-pid-chance."""
    found = re.fullmatch(r".*-(\d+)-[0-9a-f]+", owner)
    assert found, f"{owner!r} names no process"
    return int(found[1])


def read_commits(rows: Iterable[Any]) -> list[Commit]:
    """Read what was committed."""
    return [
        Commit(what, job, pid_of(owner) if owner else pid, run_no, at, body)
        for what, job, pid, owner, run_no, at, body in rows
    ]


def read_claims(rows: Iterable[Any]) -> list[Claim]:
    """Read the history."""
    return [
        Claim(job, pid_of(owner), due / 1e6, at / 1e6, outcome)
        for job, owner, due, at, outcome in rows
    ]
