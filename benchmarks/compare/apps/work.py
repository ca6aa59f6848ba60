"""The work that all peers are given, and how it is recorded. Imported by each peer's app."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.compare.records import JOBS, Event
from tools.records import Recorder

DATABASE = Path(os.environ["COMPARE_DATABASE"])
INSERT = "INSERT INTO effect (pid) VALUES (?)"

JOB = os.environ["COMPARE_JOB"]
"""Which of JOBS the app shall have."""

SECONDS = JOBS[JOB]
"""How often it is due."""

IN_THREAD = JOB == "thread"

WORK_SECONDS, BEAT_SECONDS, BEATS = 0.3, 0.25, 60
"""How long a body takes; one in a thread gives so many signs of life."""

record = Recorder[Event](Path(os.environ["COMPARE_RECORDS"]))


def note(what: str, name: str = "", detail: str = "") -> None:
    """Record an event of this process."""
    record(Event(what, os.getpid(), name, detail))


@contextmanager
def recorded(due: str) -> Iterator[str]:
    """Record that a body starts and how it ends, under a name of its own."""
    name = f"{os.getpid()}-{time.monotonic_ns()}"
    note("start", name, due)
    try:
        yield name
    except BaseException as error:
        note("cut", name, type(error).__name__)
        raise
    note("end", name)


async def work(due: str) -> None:
    """Take a moment, then write a row, as a peer without a fence does."""
    with recorded(due) as name:
        await asyncio.sleep(WORK_SECONDS)
        with closing(sqlite3.connect(DATABASE)) as database, database:
            database.execute(INSERT, [os.getpid()])
        note("written", name)


def work_in_thread(due: str) -> None:
    """Take long, without looking at whether the app stops."""
    with recorded(due) as name:
        for _ in range(BEATS):
            time.sleep(BEAT_SECONDS)
            note("beat", name)
