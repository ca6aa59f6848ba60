"""The judge is tested against histories made by hand: one that is good, and what makes it bad."""

import re
from collections.abc import Iterable
from dataclasses import replace
from inspect import getsource
from typing import Any

import pytest

from . import oracle, own_rules, row_rules
from .history import (
    Answered,
    Asked,
    Body,
    Effect,
    Fault,
    Healed,
    JobChanged,
    Killed,
    Noted,
    Problem,
    Record,
    Row,
    RunChanged,
    Started,
    Stopped,
    Stopping,
    Terms,
)
from .ledger import SECOND
from .oracle import Oracle

MINUTE = 60 * SECOND
LEASE, PERIOD = 30 * SECOND, 10 * MINUTE

TERMS = {"tick": Terms("quick", PERIOD, 0.5, timeout=PERIOD)}

NEW = Row("tick", 2 * SECOND, None, False, 0, None, None, None, 0)


def middle(_: str) -> float:
    """The chance of these processes: a gap is the interval, a wait for overdue work 5 s."""
    return 0.5


def late(seconds: int) -> int:
    """So long after the start."""
    return seconds * SECOND


def started(at: int, process: str, **options: Any) -> Started:
    """A process starts, with one job."""
    jobs: dict[str, Terms] = options.pop("jobs", TERMS)
    return Started(at, process, jobs, LEASE, 15 * SECOND, 5 * SECOND, **options)


def changed(at: int, by: str, old: Row | None, new: Row | None) -> JobChanged:
    """The row of the job changes. The database's clock is right."""
    return JobChanged(at, by, at, old, new)


def claimed(at: int, by: str, old: Row, **wrong: Any) -> tuple[Row, list[Record]]:
    """A run is claimed: the row after it, and the records of it."""
    new = replace(
        old,
        next_run_at=at + PERIOD,
        requested_at=None,
        run_no=old.run_no + 1,
        owner=by,
        lease_until=at + LEASE,
        lease_seconds=30,
    )
    new = replace(new, **wrong)
    run = RunChanged(at, by, "tick", new.run_no, old.next_run_at, None, None)
    return new, [changed(at, by, old, new), run]


def body(at: int, what: str, process: str = "p1", run_no: int = 1, detail: str = "") -> Body:
    """Something becomes of a body. It returns, unless another end is given."""
    return Body(at, process, "tick", run_no, what, detail or "returned" * (what == "ended"))


def ended(at: int, by: str, old: Row, outcome: str = "ok", **other: Any) -> list[Record]:
    """The end of a run is recorded."""
    free = replace(old, owner=None, lease_until=None, lease_seconds=None, **other)
    run = RunChanged(at, by, "tick", old.run_no, 0, None, outcome)
    return [changed(at, by, old, free), run]


MADE: list[Record] = [started(0, "p1"), started(0, "p2"), changed(0, "p1", None, NEW)]
FIRST, CLAIM = claimed(2 * SECOND, "p1", NEW)
BEGUN: list[Record] = [*MADE, *CLAIM, body(2 * SECOND, "begun")]
OVER: list[Record] = [*BEGUN, body(3 * SECOND, "ended"), body(3 * SECOND, "torn down")]
ENDED: list[Record] = [*OVER, *ended(3 * SECOND, "p1", FIRST)]
FREE = replace(FIRST, owner=None, lease_until=None, lease_seconds=None)
PAUSED = replace(NEW, paused=True)
ASKED = replace(FIRST, requested_at=3)
ASKED_PAUSED = replace(FREE, paused=True, requested_at=5)
DUE = FIRST.next_run_at
SECOND_ROW, SECOND_CLAIM = claimed(DUE, "p2", FREE)
LOST = changed(DUE, "p2", FIRST, SECOND_ROW)


def daily(at: int, by: str, old: Row, due: int) -> tuple[Row, list[Record]]:
    """A claim of a job with times of day: the next one is due 30 s after its time."""
    next_run_at = at - at % PERIOD + PERIOD + 30 * SECOND
    new, records = claimed(at, by, replace(old, next_run_at=due), next_run_at=next_run_at)
    return new, [changed(at, "operator", old, replace(old, next_run_at=due)), *records]


CRONTAB = started(
    0, "p1", jobs={"tick": Terms("crontab", PERIOD, 0.0, splay=MINUTE, timeout=PERIOD)}
)
ALONE = started(0, "p1", jobs={"tick": Terms("alone", PERIOD, 0.5, alone=True)})
AT_ELEVEN = 11 * MINUTE


def own(at: int, run_no: int) -> list[Record]:
    """All that becomes of a body: of one that the process runs for itself, it is all there is."""
    return [body(at, what, run_no=run_no) for what in ("begun", "ended", "torn down")]


def ending(detail: str, outcome: str, **after: Any) -> list[Record]:
    """A body ends so, and this is recorded of its run."""
    ends = [body(late(3), "ended", detail=detail), body(late(3), "torn down")]
    return [*ends, *ended(late(3), "p1", FIRST, outcome, **after)]


THREADED = started(0, "p1", jobs={"tick": replace(TERMS["tick"], threaded=True)})
STOPPING: list[Record] = [THREADED, *BEGUN[1:], Stopping(late(2), "p1")]


def outlived(*renewals: int) -> list[Record]:
    """A body goes on for a minute, whatever its timeout; at these seconds its lease is renewed."""
    jobs = {"tick": replace(TERMS["tick"], timeout=late(8), deaf=True)}
    row, records = FIRST, [started(0, "p1", jobs=jobs), *BEGUN[1:], body(late(10), "told")]
    for at in map(late, renewals):
        row, old = replace(row, lease_until=at + LEASE), row
        records.append(changed(at, "p1", old, row))
    retry = MINUTE + late(5)
    end = ended(MINUTE, "p1", row, "timeout", failures=1, next_run_at=retry)
    return [*records, *own(MINUTE, 1)[1:], *end, Killed(retry, "p1"), Killed(retry, "p2")]


def given_up(renewed: int) -> list[Record]:
    """A body that does not hear, in a process that is frozen and renews its lease at that second.
    Then it does so no more, and another process runs the job."""
    jobs = {"tick": replace(TERMS["tick"], timeout=late(8), deaf=True)}
    row = replace(FIRST, lease_until=late(renewed) + LEASE)
    _, [change, run] = claimed(DUE, "p2", row)
    return [
        started(0, "p1", jobs=jobs),
        *BEGUN[1:],
        Fault(late(4), "freeze", "p1", late(renewed) - 1),
        body(late(renewed) - 1, "told"),
        changed(late(renewed), "p1", FIRST, row),
        change,
        RunChanged(DUE, "p2", "tick", 1, 0, None, "abandoned"),
        run,
        body(DUE, "begun", "p2", 2),
    ]


def fire_twice() -> list[Record]:
    """The run of a time of day has ended, and its time comes again."""
    new = replace(NEW, next_run_at=PERIOD)
    first, claim = daily(AT_ELEVEN, "p1", new, PERIOD + 5 * SECOND)
    free = replace(first, owner=None, lease_until=None, lease_seconds=None)
    again = daily(AT_ELEVEN + MINUTE, "p1", free, PERIOD + 9 * SECOND)[1]
    made = changed(0, "p1", None, new)
    return [CRONTAB, made, *claim, *own(AT_ELEVEN, 1), *ended(AT_ELEVEN, "p1", first), *again]


def fire_set_back() -> list[Record]:
    """The run of a time of day has ended, and the clock is set back by ten minutes. A process that
    starts then leaves the next time as it is: the ones before have had their runs."""
    new = replace(NEW, next_run_at=PERIOD)
    first, claim = daily(AT_ELEVEN, "p1", new, PERIOD + 5 * SECOND)
    free = replace(first, owner=None, lease_until=None, lease_seconds=None)
    due = free.next_run_at
    _, [second, run] = claimed(
        due + PERIOD, "p2", free, next_run_at=due + PERIOD, lease_until=due + LEASE
    )
    assert isinstance(second, JobChanged)
    return [
        CRONTAB,
        changed(0, "p1", None, new),
        *claim,
        *own(AT_ELEVEN, 1),
        *ended(AT_ELEVEN, "p1", first),
        Fault(AT_ELEVEN + MINUTE, "clock step", None, AT_ELEVEN + MINUTE),
        Killed(AT_ELEVEN + MINUTE, "p1"),
        replace(CRONTAB, at=AT_ELEVEN + 2 * MINUTE, process="p2"),
        replace(second, store_now=due),
        run,
    ]


GOOD: dict[str, list[Record]] = {
    "one run": ENDED,
    "the next run, elsewhere": [*ENDED, *SECOND_CLAIM, body(DUE, "begun", "p2", 2)],
    "a killed process": [*BEGUN, Killed(4 * SECOND, "p1")],
    "a request while it is paused": [
        *ENDED,
        changed(5 * SECOND, "operator", FREE, ASKED_PAUSED),
        *claimed(6 * SECOND, "p2", ASKED_PAUSED)[1],
    ],
    "a frozen body that overlaps": [
        *BEGUN,
        Fault(3 * SECOND, "freeze", "p1", DUE + MINUTE),
        LOST,
        RunChanged(DUE, "p2", "tick", 1, 0, None, "abandoned"),
        RunChanged(DUE, "p2", "tick", 2, DUE, None, None),
        body(DUE, "begun", "p2", 2),
        body(DUE + MINUTE, "told"),
        body(DUE + MINUTE, "ended"),
    ],
    "a process that starts as a lease ends": [
        *BEGUN,
        changed(late(3), "operator", FIRST, ASKED),
        Killed(late(4), "p1"),
        started(late(32) - 200, "p3"),
        Noted(late(32), "p3", "in vain"),
        RunChanged(late(32) + 1, "p3", "tick", 1, 0, None, "abandoned"),
        *claimed(late(32) + 1, "p3", ASKED)[1],
    ],
    "a run by hand": [
        *MADE,
        Asked(1, "p1", "tick"),
        *claimed(SECOND, "p1", NEW)[1],
        *own(SECOND, 1),
        *ended(SECOND, "p1", claimed(SECOND, "p1", NEW)[0]),
        Answered(2 * SECOND, "p1", "tick", 1, "ok"),
        Killed(3 * SECOND, "p1"),
        Killed(3 * SECOND, "p2"),
    ],
    "two who ask for a run, of whom one has it": [
        *MADE,
        Asked(1, "p1", "tick"),
        Asked(1, "p1", "tick"),
        Answered(1, "p1", "tick", None, None),
        *claimed(SECOND, "p1", NEW)[1],
    ],
    "an outage that lasts longer for who is frozen": [
        *BEGUN,
        Fault(3 * SECOND, "cut off", "p1", 9 * SECOND),
        Fault(5 * SECOND, "freeze", "p1", 15 * SECOND),
        *(replace(each, at=16 * SECOND) for each in own(0, 1)[1:]),
        *ended(18 * SECOND, "p1", FIRST),
    ],
    "an end that waits for a frozen process, which has the database to itself": [
        *OVER[:-2],
        Fault(late(2), "hold", None, late(4), "p2"),
        Fault(late(3), "freeze", "p2", late(9)),
        *own(late(5), 1)[1:],
        *ended(late(10), "p1", FIRST),
    ],
    "a lease that was renewed too late to be trusted": given_up(28),
    "a thread that does not look, and whose lease was renewed too late": [
        THREADED,
        *(each for each in given_up(28)[1:9] if "told" not in str(each)),
        *own(late(90), 1)[1:],
        Killed(late(90), "p1"),
    ],
    "a time of day that has had its run when the clock is set back": fire_set_back(),
    "two runs of a process's own": [
        ALONE,
        *own(SECOND, 1),
        *own(SECOND + PERIOD, 2),
        Killed(2 * PERIOD, "p1"),
    ],
    "a body that outlives its timeout, and keeps its lease": outlived(12, 22, 32, 42, 52),
    "an error": [
        *BEGUN,
        *ending("ValueError", "error", failures=1, next_run_at=late(8)),
        *claimed(late(8), "p1", replace(FREE, failures=1, next_run_at=late(8)))[1],
    ],
    "a body that waited no more when its process was blocked for longer than its timeout": [
        *BEGUN,
        Fault(late(3), "block", "p1", DUE + SECOND),
        *own(DUE + SECOND, 1)[1:],
        *ended(DUE + SECOND, "p1", FIRST, next_run_at=DUE + SECOND + PERIOD),
    ],
    "a thread that has done it all at a stop": [*STOPPING, *ending("returned", "ok")],
    "a thread that has looked, and stops": [
        *STOPPING,
        body(late(3), "told"),
        *ending("stopped", "interrupted", next_run_at=late(3)),
    ],
    "a thread that has not heard that its lease is lost": [
        *STOPPING[:-1],
        Fault(late(2), "slow", "p1", late(60)),
        *ending("returned", "error", failures=1, next_run_at=late(8)),
        *claimed(late(8), "p1", replace(FREE, failures=1, next_run_at=late(8)))[1],
    ],
    "a stop": [*ENDED, Stopping(4 * SECOND, "p1"), Stopped(5 * SECOND, "p1", ())],
}


BAD: dict[str, tuple[str, list[Record]]] = {
    "a run number is left out": ("contiguous", [*MADE, *claimed(late(2), "p1", NEW, run_no=2)[1]]),
    "a claim for another": (
        "a claim is its owner's",
        [*MADE, *claimed(late(2), "p1", NEW, owner="p2")[1]],
    ),
    "a claim of a paused job": (
        "paused",
        [*MADE, changed(1, "operator", NEW, PAUSED), *claimed(late(2), "p1", PAUSED)[1]],
    ),
    "a claim too early": ("due", [*MADE, *claimed(late(1), "p1", NEW)[1]]),
    "a claim of a held job": (
        "held",
        [*BEGUN, *claimed(late(20), "p2", replace(FIRST, next_run_at=1))[1]],
    ),
    "a wrong gap": ("gap", [*MADE, *claimed(late(2), "p1", NEW, next_run_at=late(999))[1]]),
    "a start below the floor": (
        "floor",
        [*ENDED, *claimed(late(200), "p2", replace(FREE, next_run_at=late(199)))[1]],
    ),
    "a start below the floor, long after the last process that had another": (
        "floor",
        [
            started(0, "p0", jobs={"tick": replace(TERMS["tick"], period=PERIOD // 9)}),
            Killed(1, "p0"),
            *ENDED,
            *claimed(late(200), "p2", replace(FREE, next_run_at=late(199)))[1],
        ],
    ),
    "a late start though all is well": (
        "punctual",
        [*ENDED, *claimed(DUE + late(5), "p2", FREE)[1]],
    ),
    "a run that is never abandoned": (
        "abandoned",
        [*BEGUN, LOST, RunChanged(DUE, "p2", "tick", 2, DUE, None, None)],
    ),
    "overdue work that does not wait": (
        "catch-up is spread",
        [*ENDED, started(DUE + late(60), "p3"), *claimed(DUE + late(61), "p3", FREE)[1]],
    ),
    "a first run far off": (
        "new jobs run soon",
        [*MADE[:2], changed(0, "p1", None, replace(NEW, next_run_at=late(60)))],
    ),
    "a heartbeat of another": (
        "an old run changes nothing",
        [*BEGUN, changed(late(9), "p2", FIRST, replace(FIRST, lease_until=late(39)))],
    ),
    "a heartbeat too late": (
        "an expired lease stays so",
        [*BEGUN, changed(late(33), "p1", FIRST, replace(FIRST, lease_until=late(63)))],
    ),
    "a heartbeat for too long": (
        "a renewal is for a lease",
        [*BEGUN, changed(late(9), "p1", FIRST, replace(FIRST, lease_until=late(40)))],
    ),
    "a heartbeat that counts a failure": (
        "a renewal is for a lease",
        [*BEGUN, changed(late(9), "p1", FIRST, replace(FIRST, lease_until=late(39), failures=1))],
    ),
    "a claim that counts a failure": (
        "failures",
        [*MADE, *claimed(late(2), "p1", NEW, failures=1)[1]],
    ),
    "an end that counts no failure": (
        "failures",
        [*BEGUN, *ending("ValueError", "error", next_run_at=late(8))],
    ),
    "an end that counts one of what is ok": (
        "failures",
        [*BEGUN, *ending("returned", "ok", failures=1)],
    ),
    "an end by another": ("an old run changes nothing", [*BEGUN, *ended(late(3), "p2", FIRST)]),
    "an owner without a claim": (
        "an old run changes nothing",
        [*ENDED, changed(late(4), "p1", FREE, replace(FREE, owner="p1"))],
    ),
    "an end that clears a request": (
        "a request is one start",
        [
            *BEGUN,
            changed(late(3), "operator", FIRST, ASKED),
            body(late(3), "ended"),
            *ended(late(3), "p1", ASKED, requested_at=None),
        ],
    ),
    "an end while the body goes on": (
        "an end is the body's",
        [*BEGUN, *ended(late(3), "p1", FIRST)],
    ),
    "an end that moves the next run": (
        "due after an end",
        [*BEGUN, body(late(3), "ended"), *ended(late(3), "p1", FIRST, next_run_at=DUE + 9)],
    ),
    "an error that is told as ok": (
        "the outcome is the body's",
        [*BEGUN, *ending("ValueError", "ok")],
    ),
    "a good end that is told as an error": (
        "the outcome is the body's",
        [*BEGUN, *ending("returned", "error")],
    ),
    "a good end that is told as missed": (
        "the outcome is the body's",
        [*BEGUN, *ending("returned", "missed")],
    ),
    "a run without a body that is told as ok": (
        "the outcome is the body's",
        [*MADE, *CLAIM, *ended(late(3), "p1", FIRST)],
    ),
    "a timeout that is not over": (
        "the outcome is the body's",
        [*BEGUN, *ending("cancelled", "timeout")],
    ),
    "a body that is over its timeout, told as ok": (
        "the outcome is the body's",
        [*BEGUN, *own(DUE + SECOND, 1)[1:], *ended(DUE + SECOND, "p1", FIRST)],
    ),
    "a thread that has done it all at a stop, told as cut short": (
        "the outcome is the body's",
        [*STOPPING, *ending("returned", "interrupted")],
    ),
    "a thread that has looked at a stop, told as an error": (
        "the outcome is the body's",
        [*STOPPING, body(late(3), "told"), *ending("stopped", "error")],
    ),
    "a run that nothing stops, told as cut short": (
        "the outcome is the body's",
        [*BEGUN, *ending("cancelled", "interrupted")],
    ),
    "an end recorded late": (
        "ends are recorded",
        [*BEGUN, body(late(3), "ended"), *ended(late(9), "p1", FIRST)],
    ),
    "an end that waits for a process which is frozen, and has not the database": (
        "ends are recorded",
        [
            *OVER[:-2],
            Fault(late(2), "hold", None, late(4), "p2"),
            Fault(late(3), "freeze", "p3", late(9)),
            *own(late(5), 1)[1:],
            *ended(late(10), "p1", FIRST),
        ],
    ),
    "an end never recorded": ("ends are recorded", [*BEGUN, body(late(3), "ended")]),
    "an outcome of nothing": (
        "a run has a claim",
        [*MADE, RunChanged(late(2), "p1", "tick", 1, 0, None, None)],
    ),
    "two outcomes": (
        "one outcome",
        [*ENDED, RunChanged(late(4), "p1", "tick", 1, 0, "ok", "error")],
    ),
    "a due time moved on": (
        "clamp",
        [*MADE, changed(late(1), "p1", NEW, replace(NEW, next_run_at=late(99)))],
    ),
    "a due time that is left too late": (
        "clamp",
        [
            *MADE[:2],
            changed(0, "operator", None, replace(NEW, next_run_at=3 * PERIOD)),
            *claimed(3 * PERIOD, "p1", replace(NEW, next_run_at=3 * PERIOD))[1],
        ],
    ),
    "a time of day moved to the past": (
        "clamp",
        [
            CRONTAB,
            changed(0, "operator", None, replace(NEW, next_run_at=2 * PERIOD)),
            changed(
                PERIOD,
                "p1",
                replace(NEW, next_run_at=2 * PERIOD),
                replace(NEW, next_run_at=PERIOD - 1),
            ),
        ],
    ),
    "a time of day that runs twice": ("one run a fire", fire_twice()),
    "a row that is deleted": ("rows stay", [*MADE, changed(late(1), "p1", NEW, None)]),
    "a change that was not seen": (
        "whole history",
        [*MADE, *claimed(late(2), "p1", replace(NEW, failures=1))[1]],
    ),
    "a dependency that stays": (
        "torn down",
        [*BEGUN, body(late(3), "ended"), *ended(late(3), "p1", FIRST)],
    ),
    "a dependency that goes before its body": ("torn down", [*BEGUN, body(late(3), "torn down")]),
    "a dependency that goes twice": ("torn down", [*OVER, body(late(3), "torn down")]),
    "an end that is told otherwise": (
        "told as recorded",
        [*ENDED, Answered(late(3), "p1", "tick", 1, "error")],
    ),
    "an end that is told of another's run": (
        "told as recorded",
        [*ENDED, Answered(late(3), "p2", "tick", 1, "ok")],
    ),
    "an end that is told of no run": (
        "told as recorded",
        [*ENDED, Answered(late(3), "p1", "tick", 2, "ok")],
    ),
    "a claim too early after a run by hand": (
        "due",
        [
            *MADE,
            Asked(1, "p1", "tick"),
            Answered(2, "p1", "tick", None, None),
            *claimed(late(1), "p1", NEW)[1],
        ],
    ),
    "an own run too early": ("own gap", [ALONE, *own(late(1), 1), *own(late(2), 2)]),
    "an own run too late": (
        "own gap",
        [ALONE, *own(late(1), 1), *own(late(1) + PERIOD + SECOND // 100, 2)],
    ),
    "an own run that never comes": ("own gap", [ALONE, *own(late(1), 1)]),
    "a first own run that never comes": ("own gap", [ALONE]),
    "an own run during another": (
        "own bodies",
        [ALONE, *own(late(1), 1)[:1], *own(late(1) + PERIOD, 2)],
    ),
    "an own run whose dependency stays": (
        "own bodies",
        [ALONE, *own(late(1), 1)[:2], *own(late(1) + PERIOD, 2)],
    ),
    "a row that nobody there knows": (
        "unknown jobs stay",
        [started(0, "p1", jobs={}), changed(1, "p1", None, NEW)],
    ),
    "a write of the dead": (
        "the dead do nothing",
        [*BEGUN, Killed(late(3), "p1"), *ended(late(4), "p1", FIRST)],
    ),
    "an effect of an old run": (
        "stale effects are refused",
        [*BEGUN, LOST, Effect(DUE, "p1", "tick", 1)],
    ),
    "an effect after the end": (
        "stale effects are refused",
        [*ENDED, Effect(late(4), "p1", "tick", 1)],
    ),
    "a body without a claim": ("a body has a claim", [*MADE, body(late(2), "begun")]),
    "two bodies of a claim": ("one body a claim", [*BEGUN, body(late(2), "begun")]),
    "a body that begins late": ("start slack", [*MADE, *CLAIM, body(late(5), "begun")]),
    "a body that begins without a lease": (
        "trust",
        [*MADE, *CLAIM, Fault(late(2), "freeze", "p1", late(40)), body(late(40), "begun")],
    ),
    "a body that outlives its timeout, and its lease": ("trust", outlived()),
    "a body that goes on without a lease": ("trust", [*BEGUN, body(late(40), "told")]),
    "a thread that goes on without a lease": (
        "trust",
        [THREADED, *BEGUN[1:], *own(late(40), 1)[1:]],
    ),
    "a lease that was renewed in time, and then no more": ("no overlap", given_up(20)),
    "two bodies at once": ("no overlap", [*BEGUN, LOST, body(DUE, "begun", "p2", 2)]),
    "a second body beside one that does not hear": (
        "no overlap",
        [*BEGUN, body(late(3), "told"), LOST, body(DUE, "begun", "p2", 2)],
    ),
    "a second body beside a thread": (
        "no overlap",
        [THREADED, replace(THREADED, process="p2"), *BEGUN[2:], LOST, body(DUE, "begun", "p2", 2)],
    ),
    "two bodies in one process": (
        "one body a process",
        [*BEGUN, *claimed(DUE, "p1", FIRST)[1], body(DUE, "begun", "p1", 2)],
    ),
    "a stop that cuts short at once": (
        "grace",
        [*BEGUN, Stopping(late(3), "p1"), body(late(3), "told")],
    ),
    "a stop that takes long": (
        "stop is bounded",
        [*ENDED, Stopping(late(4), "p1"), Stopped(late(20), "p1", ())],
    ),
    "a stop that leaves a body": (
        "stop ends bodies",
        [*BEGUN, Stopping(late(3), "p1"), Stopped(late(9), "p1", ())],
    ),
    "a stop that leaves a task": (
        "nothing is left",
        [*ENDED, Stopping(late(4), "p1"), Stopped(late(5), "p1", ("a task",))],
    ),
    "a lease that holds as it ends": (
        "over is over",
        [
            *MADE,
            *CLAIM,
            changed(late(3), "operator", FIRST, ASKED),
            Noted(late(32), "p2", "in vain"),
        ],
    ),
    "a complaint": ("no complaint", [*MADE, Problem(1, "p1", "an exception")]),
    "a job that never starts again": ("healed jobs run", [*ENDED, Healed(late(9))]),
}


def rules(history: Iterable[Record], end: int = 2 * PERIOD) -> set[str]:
    """The rules that a history breaks."""
    return {violation.rule for violation in Oracle(middle).judge(history, end)}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_a_good_history_breaks_no_rule(history: list[Record]) -> None:
    """What the contract allows is no violation."""
    assert rules(history) == set()


@pytest.mark.parametrize(("rule", "history"), BAD.values(), ids=BAD)
def test_a_bad_history_breaks_its_rule(rule: str, history: list[Record]) -> None:
    """What the contract forbids is found, by its name."""
    assert rule in rules(history, 5 * PERIOD)


def test_each_rule_has_a_bad_history() -> None:
    """A rule that nothing breaks here may be one that nothing can break."""
    source = "".join(map(getsource, (oracle, own_rules, row_rules)))
    assert set(re.findall(r'_broken\(\s*"(.+?)"', source)) == {rule for rule, _ in BAD.values()}
