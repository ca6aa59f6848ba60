"""What a run of the service consists of: on which database, and what is done to it in turn."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from tools.chaos.databases import Postgres, Sqlite
from tools.chaos.faults import (
    CLOCK,
    CUT,
    DISCONNECT,
    FAULTS,
    FULL,
    KILL,
    RESTART,
    STOP,
    TERMINATE,
    Fault,
)
from tools.chaos.harness import POLL_SECONDS, Fleet
from tools.chaos.records import Evidence

DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Scenario:
    """What is done in turn, each for so long that it can be seen. Nothing, without faults."""

    name: str
    faults: tuple[Fault, ...] = ()
    grace: float = 5

    def on(self, database: str) -> tuple[Fault, ...]:
        """Return what can be done on that database, and on this machine."""
        return tuple(it for it in self.faults if database in it.databases and not it.lacks())

    def run(
        self, database: str, folder: Path, groups: Sequence[int], seconds: float, random: Random
    ) -> Evidence:
        """Let the service run for so long. `random` draws to whom something is done."""
        faults = self.on(database)
        with ExitStack() as stack:
            place = stack.enter_context(
                Postgres(folder) if database == "postgres" else Sqlite(folder, small=FULL in faults)
            )
            fleet = stack.enter_context(
                Fleet(
                    folder,
                    place,
                    "service",
                    groups,
                    grace=self.grace,
                    clocks=CLOCK in faults,
                    links=CUT in faults,
                )
            )
            since, until = run(fleet, faults, seconds, random)
            return fleet.evidence(since, until)


def run(
    fleet: Fleet, faults: Sequence[Fault], seconds: float, random: Random
) -> tuple[float, float]:
    """Do it all to the fleet, then end it. Give from when to when that was, but for the end."""
    since = act_at = time.monotonic()
    until, turns = since + seconds, count()
    turn = next(turns)
    while (now := time.monotonic()) < until:
        events = fleet.tend()
        if faults and now >= act_at:
            fault = faults[turn % len(faults)]
            if found := fault.targets(fleet, events, turn // len(faults)):
                fault.strike(fleet, random.choice(found), random)
                act_at, turn = max(act_at + fault.every_seconds, now), next(turns)
        slept = time.monotonic()
        time.sleep(POLL_SECONDS)
        fleet.held_up = max(fleet.held_up, time.monotonic() - slept - POLL_SECONDS)
    until = time.monotonic()
    fleet.end()
    return since, until


SCENARIOS = (
    Scenario("quiet"),
    Scenario("kill", (KILL,)),
    Scenario("stop", (STOP,)),
    # Without grace, or bodies that take a fifth of a second would all end in time.
    Scenario("terminate", (TERMINATE,), grace=0),
    Scenario("full", (FULL,)),
    Scenario("restart", (RESTART,)),
    Scenario("disconnect", (DISCONNECT,)),
    Scenario("cut", (CUT,)),
    Scenario("clock", (CLOCK,)),
    Scenario("all", FAULTS),
)
